"""What points add to their minutes: a commutative group, so that a point that is replaced can be subtracted.

A point of a gauge or a sum counts once, with its value. A delta histogram adds its measurements. A cumulative histogram counts
only as a point: it contains the ones before it, so adding them up would make no sense. Values and sums that are not finite are
left out. All numbers are integers and decimals, so that no sum depends on the order of addition.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Context, Decimal, Inexact
from typing import Any, Final

from spanfold.projections.metrics.buckets import buckets_of

US_PER_MINUTE: Final = 60_000_000

_EXACT: Final = Context(prec=2000, traps=[Inexact])
"""Enough for any sum of doubles: the greatest has 309 digits before the point, the least 1074 after it."""

MinuteKey = tuple[str, int]
"""(series_id, minute in µs since 1970)."""


@dataclass(slots=True)
class Minute:
    """The sum of some points in one minute of their series."""

    points: int = 0
    count: int = 0
    sum: Decimal = Decimal(0)
    buckets: dict[str, int] = field(default_factory=dict)


def difference(
    added: Iterable[tuple[str, int, Mapping[str, Any]]], removed: Iterable[tuple[str, int, Mapping[str, Any]]]
) -> dict[MinuteKey, Minute]:
    """How minutes change when these points (series_id, time in µs since 1970, fields) are added and removed."""
    minutes: dict[MinuteKey, Minute] = {}
    for sign, points in ((1, added), (-1, removed)):
        for series_id, time, measured in points:
            key = (series_id, time // US_PER_MINUTE * US_PER_MINUTE)
            minute = minutes.get(key)
            if minute is None:
                minute = minutes[key] = Minute()
            minute.points += sign
            if measured["value"] is not None and measured["kind"] in ("gauge", "sum"):
                _add_value(minute, measured["value"], sign)
            elif measured["temporality"] == "delta":
                _add_histogram(minute, measured, sign)
    return minutes


def exact(number: float | Decimal) -> Decimal:
    """The shortest decimal that reads back as this double; an integer unchanged. NaN and infinities stay what they are."""
    return Decimal(repr(number)) if isinstance(number, float) else Decimal(number)


def _add_value(minute: Minute, value: float | Decimal, sign: int) -> None:
    number = exact(value)
    if number.is_finite():
        minute.count += sign
        minute.sum = _EXACT.add(minute.sum, number) if sign > 0 else _EXACT.subtract(minute.sum, number)


def _add_histogram(minute: Minute, measured: Mapping[str, Any], sign: int) -> None:
    minute.count += sign * measured["count"]
    number = exact(measured["sum"] or 0)
    if number.is_finite():
        minute.sum = _EXACT.add(minute.sum, number) if sign > 0 else _EXACT.subtract(minute.sum, number)
    buckets = minute.buckets
    for upper, count in buckets_of(measured):
        buckets[upper] = buckets.get(upper, 0) + sign * count
