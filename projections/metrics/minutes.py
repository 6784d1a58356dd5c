"""What points add to their minutes: a commutative group, so that a point that is replaced can be subtracted.

A gauge's value and a delta point count as they are. A cumulative point counts by its difference to its predecessor: the latest
earlier point of the same series, kind and start_time, at most CHAIN_DAYS before it. If it has none, it counts whole if its
start_time is at most CHAIN_DAYS before it, else not at all: how much of it is new is not known. A monotonic value, a count or a
bucket that is lower than the predecessor's is a reset: then the point counts whole.

Values that are not finite are left out, as points and as predecessors. All numbers are integers and decimals, so that no sum
depends on the order of addition.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Context, Decimal, Inexact
from typing import Any, Final

from spanfold.language.topics import US_PER_DAY, US_PER_MINUTE
from spanfold.projections.metrics.buckets import buckets_of
from spanfold.projections.metrics.tables import CHAIN_DAYS

CHAIN_US: Final = CHAIN_DAYS * US_PER_DAY

_EXACT: Final = Context(prec=2000, traps=[Inexact])
"""Enough for any sum of doubles: the greatest has 309 digits before the point, the least 1074 after it."""

MinuteKey = tuple[str, int]
"""(series_id, minute in µs since 1970)."""

TimedPoint = tuple[str, int, Mapping[str, Any]]
"""series_id, time in µs since 1970, and what was measured, by the names of MetricUpdated."""


@dataclass(slots=True)
class Minute:
    """The sum of some points in one minute of their series."""

    points: int = 0
    count: int = 0
    sum: Decimal = Decimal(0)
    buckets: dict[str, int] = field(default_factory=dict)


def difference(added: Iterable[TimedPoint], removed: Iterable[TimedPoint]) -> dict[MinuteKey, Minute]:
    """How minutes change when these points are added and removed. A cumulative point is looked up among those on its side, so
    neighbors whose predecessor changes stand on both.
    """
    minutes: dict[MinuteKey, Minute] = {}
    for sign, points in ((1, added), (-1, removed)):
        for (series_id, time, measured), predecessor in _chained(points):
            minute = minutes.setdefault((series_id, time // US_PER_MINUTE * US_PER_MINUTE), Minute())
            minute.points += sign
            if measured["kind"] in ("gauge", "sum"):
                _add_value(minute, time, measured, predecessor, sign)
            else:
                _add_histogram(minute, time, measured, predecessor, sign)
    return {key: minute for key, minute in minutes.items() if _changes(minute)}


def exact(number: float | Decimal) -> Decimal:
    """The shortest decimal that reads back as this double; an integer unchanged. NaN and infinities stay what they are."""
    return Decimal(repr(number)) if isinstance(number, float) else Decimal(number)


def is_chained(measured: Mapping[str, Any]) -> bool:
    """Whether the point counts by a difference, and may be a predecessor."""
    if measured["temporality"] != "cumulative" or measured["kind"] == "gauge":
        return False
    return measured["kind"] != "sum" or exact(measured["value"]).is_finite()


def _changes(minute: Minute) -> bool:
    return bool(minute.points or minute.count or minute.sum or any(minute.buckets.values()))


def _chained(points: Iterable[TimedPoint]) -> Iterator[tuple[TimedPoint, Mapping[str, Any] | None]]:
    """Each point with its predecessor."""
    chains: dict[tuple[Any, ...], list[TimedPoint]] = {}
    for point in points:
        series_id, _, measured = point
        if is_chained(measured):
            chains.setdefault((series_id, measured["kind"], measured["start_time"]), []).append(point)
        else:
            yield point, None
    for chain in chains.values():
        chain.sort(key=lambda point: point[1])
        for at, point in enumerate(chain):
            before = chain[at - 1] if at else None
            is_near = before is not None and point[1] - before[1] <= CHAIN_US
            yield point, before[2] if before is not None and is_near else None


def _is_counted_from_start(time: int, measured: Mapping[str, Any]) -> bool:
    start = measured["start_time"]
    return start is not None and time - start <= CHAIN_US


def _add_value(
    minute: Minute, time: int, measured: Mapping[str, Any], predecessor: Mapping[str, Any] | None, sign: int
) -> None:
    number = exact(measured["value"])
    if not number.is_finite():
        return
    minute.count += sign
    if is_chained(measured):
        number = _increase(time, measured, number, predecessor)
    minute.sum = _plus(minute.sum, number, sign)


def _increase(
    time: int, measured: Mapping[str, Any], number: Decimal, predecessor: Mapping[str, Any] | None
) -> Decimal:
    if predecessor is None:
        return number if _is_counted_from_start(time, measured) else Decimal(0)
    before = exact(predecessor["value"])
    is_reset = measured["monotonic"] and number < before
    return number if is_reset else _EXACT.subtract(number, before)


def _add_histogram(
    minute: Minute, time: int, measured: Mapping[str, Any], predecessor: Mapping[str, Any] | None, sign: int
) -> None:
    if measured["temporality"] not in ("delta", "cumulative"):
        return
    count, total, buckets = measured["count"], _finite(measured["sum"]), _counted(measured)
    if is_chained(measured):
        if predecessor is not None and _same_shape(measured, predecessor):
            count, total, buckets = _growth(count, total, buckets, predecessor)
        elif not _is_counted_from_start(time, measured):
            return
    minute.count += sign * count
    minute.sum = _plus(minute.sum, total, sign)
    for upper, bucket_count in buckets.items():
        minute.buckets[upper] = minute.buckets.get(upper, 0) + sign * bucket_count


def _growth(
    count: int, total: Decimal, buckets: dict[str, int], predecessor: Mapping[str, Any]
) -> tuple[int, Decimal, dict[str, int]]:
    """What a cumulative histogram has counted since its predecessor; all of it after a reset."""
    before = _counted(predecessor)
    grown = {upper: buckets.get(upper, 0) - before.get(upper, 0) for upper in {**buckets, **before}}
    if count < predecessor["count"] or any(more < 0 for more in grown.values()):
        return count, total, buckets
    return count - predecessor["count"], _EXACT.subtract(total, _finite(predecessor["sum"])), grown


def _counted(measured: Mapping[str, Any]) -> dict[str, int]:
    """The counts by upper bound. Several buckets may share a bound: the least powers round to 0, the greatest to Infinity."""
    counts: dict[str, int] = {}
    for upper, count in buckets_of(measured):
        counts[upper] = counts.get(upper, 0) + count
    return counts


def _same_shape(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    if one["kind"] == "histogram":
        return list(one["bounds"]) == list(other["bounds"])
    return bool(one["scale"] == other["scale"])


def _finite(number: float | Decimal | None) -> Decimal:
    """The number, 0 if it is not known or not finite."""
    value = exact(number or 0)
    return value if value.is_finite() else Decimal(0)


def _plus(one: Decimal, other: Decimal, sign: int) -> Decimal:
    return _EXACT.add(one, other) if sign > 0 else _EXACT.subtract(one, other)
