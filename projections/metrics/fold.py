"""The fold: facts to partials. Pure and commutative.

The topic has no journal, so an event may arrive again. A partial therefore holds points, not sums of them: of several events for
one point the greatest event id wins, and an event that arrives again changes nothing.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple, assert_never, cast

from spanfold.language.topics import MetricEventType
from spanfold.projections.facts import Fact
from spanfold.projections.resources import Source, source_of
from spanfold.schemas.codec import Fields

PointKey = tuple[str, int]
"""(series_id, time in µs since 1970)."""


class Point(NamedTuple):
    """The event that measured a point. `age` is -offset: if an event has several records, the first one counts."""

    event_id: bytes
    age: int
    fields: Fields

    @property
    def source(self) -> Source:
        """What emitted it."""
        return source_of(self.fields)


MetricsPartial = dict[PointKey, Point]
"""The winner of each point; a commutative, idempotent monoid under `combine`."""


def fold(facts: Sequence[Fact]) -> MetricsPartial:
    """The partial of some facts; neither order nor repetition matters."""
    partial: MetricsPartial = {}
    for offset, event_type, fields in facts:
        match cast(MetricEventType, event_type):
            case "MetricUpdated":
                _contend(
                    partial, (fields["aggregate_id"], fields["occurred_at"]), Point(fields["event_id"], -offset, fields)
                )
            case unknown:
                assert_never(unknown)
    return partial


def combine(one: MetricsPartial, other: MetricsPartial) -> MetricsPartial:
    """The partial of the facts of both."""
    partial = dict(one)
    for key, point in other.items():
        _contend(partial, key, point)
    return partial


def _contend(partial: MetricsPartial, key: PointKey, point: Point) -> None:
    rival = partial.get(key)
    if rival is None or point[:2] > rival[:2]:
        partial[key] = point


def latest(keys: Iterable[PointKey]) -> dict[str, int]:
    """The time of the last of these points of each series."""
    times: dict[str, int] = {}
    for series_id, time in keys:
        if times.get(series_id, time) <= time:
            times[series_id] = time
    return times
