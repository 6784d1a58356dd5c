"""The aggregate of a metric's series, on a telemetry topic: its latest point, in whatever order points arrive.

It has no commands: measurements are published, and nothing can refuse them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, assert_never

from spanfold.application.aggregates.base import Aggregate
from spanfold.language.errors import CommandRefused
from spanfold.language.events import MetricEvent, MetricUpdated, event_classes
from spanfold.language.topics import METRICS


@dataclass(frozen=True, slots=True)
class MetricSeriesState:
    """The latest point of a series, None if it has none. Of two points at the same time it is the one with the greater event id,
    as in the read model.
    """

    series_id: str
    latest: MetricUpdated | None = None


class MetricSeriesAggregate(Aggregate[MetricSeriesState]):
    """A metric's series."""

    topic = METRICS
    events = event_classes(METRICS)
    commands = ()
    snapshot = "MetricSeriesSnapshot"

    @staticmethod
    def initial(aggregate_id: str) -> MetricSeriesState:
        return MetricSeriesState(aggregate_id)

    @staticmethod
    def decide(state: MetricSeriesState, command: Any) -> Sequence[MetricEvent]:
        raise CommandRefused(
            f"a metric's series takes no commands, got {type(command).__name__}: publish a MetricUpdated event instead"
        )

    @staticmethod
    def evolve(state: MetricSeriesState, event: MetricEvent) -> MetricSeriesState:
        match event:
            case MetricUpdated():
                return _with_point(state, event)
            case unknown:
                assert_never(unknown)

    @staticmethod
    def as_plain(state: MetricSeriesState) -> Mapping[str, Any]:
        return {"series_id": state.series_id, "latest": state.latest and state.latest.as_fields()}

    @staticmethod
    def from_plain(plain: Mapping[str, Any]) -> MetricSeriesState:
        latest = plain["latest"]
        if latest is None:
            return MetricSeriesState(plain["series_id"])
        # events are immutable and have tuples where Avro has lists
        fields: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in latest.items()
        }
        return MetricSeriesState(plain["series_id"], MetricUpdated(**fields))


def _with_point(state: MetricSeriesState, point: MetricUpdated) -> MetricSeriesState:
    latest = state.latest
    if latest is not None and (point.occurred_at, point.event_id) <= (latest.occurred_at, latest.event_id):
        return state
    return replace(state, latest=point)
