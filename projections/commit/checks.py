"""What an event's schema cannot say of its values. Pure; an event that fails is parked as `invalid`, with the answer."""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from math import isnan
from typing import Final

from spanfold.language.severities import MAX_SEVERITY
from spanfold.schemas.codec import Fields

MAX_SERVICE_NAME_BYTES: Final = 512
"""The key of a log record without a trace is its service's name, and no key is longer than this (verdicts.py)."""

MIN_SCALE: Final = -10
MAX_SCALE: Final = 20
"""The scales of exponential histograms that OpenTelemetry's data model asks implementations to handle."""


def why_no_log(fields: Fields) -> str | None:
    """What is wrong with a LogRecorded, or None."""
    length = len(fields["service_name"].encode())
    if length > MAX_SERVICE_NAME_BYTES:
        return f"service_name is {length} bytes long; at most {MAX_SERVICE_NAME_BYTES} fit into a key"
    if not 0 <= fields["severity_number"] <= MAX_SEVERITY:
        return f"severity_number is {fields['severity_number']}, not in 0 to {MAX_SEVERITY}"
    return None


def why_no_root(fields: Fields) -> str | None:
    """What is wrong with a TraceCompleted or a TraceFailed, or None."""
    if (fields["span_id"] is None) is not (fields["start_time"] is None):
        return "span_id and start_time are the root span's: both or neither"
    return None


def why_no_point(fields: Fields) -> str | None:
    """What is wrong with a MetricUpdated, or None."""
    kind = fields["kind"]
    if fields["temporality"] not in (None, "delta", "cumulative"):
        return f"temporality is {fields['temporality']!r}, neither delta nor cumulative nor null"
    if kind in ("gauge", "sum"):
        return f"a {kind} without a value" if fields["value"] is None else None
    if kind not in ("histogram", "exponential_histogram"):
        return f"kind is {kind!r}, not gauge, sum, histogram or exponential_histogram"
    if fields["count"] is None or fields["count"] < 0:
        return f"the count of a histogram is {fields['count']}"
    return _why_no_buckets(fields) if kind == "histogram" else _why_no_exponential_buckets(fields)


def _why_no_buckets(fields: Fields) -> str | None:
    bounds, counts = fields["bounds"], fields["bucket_counts"]
    # OpenTelemetry: a histogram may have no buckets at all, only a count and a sum
    if len(counts) != len(bounds) + 1 and (counts or bounds):
        return f"{len(counts)} bucket_counts for {len(bounds)} bounds: there must be one more"
    if any(map(isnan, bounds)) or not all(lower < upper for lower, upper in pairwise(bounds)):
        return "the bounds do not ascend"
    return _why_not_counted(counts)


def _why_no_exponential_buckets(fields: Fields) -> str | None:
    scale = fields["scale"]
    if scale is None or not MIN_SCALE <= scale <= MAX_SCALE:
        return f"the scale of an exponential histogram is {scale}, not in {MIN_SCALE} to {MAX_SCALE}"
    return _why_not_counted([fields["zero_count"] or 0, *fields["positive_counts"], *fields["negative_counts"]])


def _why_not_counted(counts: Sequence[int]) -> str | None:
    return "a bucket's count is negative" if min(counts, default=0) < 0 else None


CHECKS: Final[Mapping[str, Callable[[Fields], str | None]]] = {
    "LogRecorded": why_no_log,
    "MetricUpdated": why_no_point,
    "TraceCompleted": why_no_root,
    "TraceFailed": why_no_root,
}
"""By event type: why these fields cannot become a row, or None if they can."""
