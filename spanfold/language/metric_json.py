"""The fields of a MetricUpdated in JSON: how they are read, and which ones go together."""

from collections.abc import Mapping
from itertools import pairwise
from math import isnan
from typing import Any, Final

from spanfold.language.errors import InvalidInput
from spanfold.language.json_values import (
    Reader,
    choice,
    flag,
    integer,
    list_of,
    number,
    number_text,
    or_null,
    real,
    tags,
    text,
    time_us,
)

_COUNT: Final = integer(0, (1 << 63) - 1)
_OFFSET: Final = integer(-(1 << 31), (1 << 31) - 1)

READERS: Final[dict[str, Reader]] = {
    "unit": text,
    "kind": choice("gauge", "sum", "histogram", "exponential_histogram"),
    "temporality": or_null(choice("delta", "cumulative")),
    "monotonic": flag,
    "start_time": or_null(time_us),
    "value": or_null(number),
    "count": or_null(_COUNT),
    "sum": or_null(real),
    "min": or_null(real),
    "max": or_null(real),
    "bounds": list_of(real),
    "bucket_counts": list_of(_COUNT),
    "scale": or_null(integer(-10, 20)),
    "zero_count": or_null(_COUNT),
    "positive_offset": _OFFSET,
    "positive_counts": list_of(_COUNT),
    "negative_offset": _OFFSET,
    "negative_counts": list_of(_COUNT),
    "labels": tags,
}
"""The range of `scale` is the one in OpenTelemetry's data model."""

_DISTRIBUTION: Final = frozenset({"temporality", "count", "sum", "min", "max"})
_OF_KIND: Final[Mapping[str, frozenset[str]]] = {
    "gauge": frozenset({"value"}),
    "sum": frozenset({"value", "temporality", "monotonic"}),
    "histogram": _DISTRIBUTION | {"bounds", "bucket_counts"},
    "exponential_histogram": _DISTRIBUTION
    | {"scale", "zero_count", "positive_offset", "positive_counts", "negative_offset", "negative_counts"},
}
_REQUIRED: Final[Mapping[str, tuple[str, ...]]] = {
    "gauge": ("value",),
    "sum": ("value", "temporality"),
    "histogram": ("count", "temporality"),
    "exponential_histogram": ("count", "scale", "temporality"),
}
_NOT_COMMON: Final = frozenset().union(*_OF_KIND.values())


def refuse_incoherent(data: Mapping[str, Any]) -> None:
    """InvalidInput when a field is missing or wrong for the point's kind, or its buckets don't add up."""
    kind = data.get("kind", "gauge")
    missing = [name for name in _REQUIRED[kind] if data.get(name) is None]
    if missing:
        raise InvalidInput(f"event_data: a point of kind {kind} needs {', '.join(missing)}")
    # null, false, 0 and empty are defaults, and event_to_json writes them too
    foreign = [name for name in sorted(_NOT_COMMON - _OF_KIND[kind]) if data.get(name) not in (None, False, 0, ())]
    if foreign:
        raise InvalidInput(
            f"event_data: a point of kind {kind} can't have {', '.join(foreign)}; `kind` says what it is"
        )
    if kind == "histogram":
        _refuse_buckets(data["count"], data.get("bounds", ()), data.get("bucket_counts", ()))


def _refuse_buckets(count: int, bounds: tuple[float, ...], counts: tuple[int, ...]) -> None:
    if not bounds and not counts:
        return
    if len(counts) != len(bounds) + 1:
        raise InvalidInput(f"event_data: {len(bounds)} bounds need {len(bounds) + 1} bucket_counts, got {len(counts)}")
    if any(map(isnan, bounds)) or not all(lower < upper for lower, upper in pairwise(bounds)):
        raise InvalidInput("event_data.bounds: expected numbers in ascending order")
    if sum(counts) != count:
        raise InvalidInput(f"event_data: bucket_counts add up to {sum(counts)}, but count is {count}")


def as_json(data: Mapping[str, Any]) -> dict[str, Any]:
    """The fields as JSON: NaN and infinities as text, tuples as lists."""
    return {name: _value(value) if name in _NUMBERS else value for name, value in data.items()}


_NUMBERS: Final = frozenset({"value", "sum", "min", "max", "bounds"})


def _value(value: Any) -> Any:
    if isinstance(value, tuple):
        return [number_text(bound) for bound in value]
    return None if value is None else number_text(value)
