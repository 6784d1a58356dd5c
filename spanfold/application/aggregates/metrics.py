"""The aggregate of a metric's series, on a telemetry topic: its latest point, in whatever order points arrive.

It has no commands: a measurement is published, and nothing refuses it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, assert_never

from spanfold.application.aggregates.base import Aggregate
from spanfold.language.errors import CommandRefused
from spanfold.language.events import MetricEvent, MetricUpdated, events_of
from spanfold.language.topics import METRICS


@dataclass(frozen=True, slots=True)
class MetricSeriesState:
    """`latest` is the point with the greatest time, and of two at one time that with the greater event id, as in the read
    model; None while there is none.
    """

    series_id: str
    latest: MetricUpdated | None = None


class MetricSeriesAggregate(Aggregate[MetricSeriesState]):
    """A metric's series."""

    topic = METRICS
    events = events_of(METRICS)
    commands = ()
    snapshot = "MetricSeriesSnapshot"

    @staticmethod
    def initial(aggregate_id: str) -> MetricSeriesState:
        return MetricSeriesState(aggregate_id)

    @staticmethod
    def decide(state: MetricSeriesState, command: Any) -> Sequence[MetricEvent]:
        raise CommandRefused(
            f"a metric's series takes no commands, got {type(command).__name__}: publish MetricUpdated"
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
        said = plain["latest"]
        if said is None:
            return MetricSeriesState(plain["series_id"])
        # Avro's arrays are lists, and an event's are tuples, because it never changes
        latest: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in said.items()
        }
        return MetricSeriesState(plain["series_id"], MetricUpdated(**latest))


def _with_point(state: MetricSeriesState, point: MetricUpdated) -> MetricSeriesState:
    held = state.latest
    if held is not None and (point.occurred_at, point.event_id) <= (held.occurred_at, held.event_id):
        return state
    return replace(state, latest=point)
