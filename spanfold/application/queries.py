"""The questions that the read models answer, and what they answer with. Times are µs since 1970 UTC, durations µs."""

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Annotated, Any, Final, Generic, Self, TypeVar

from pydantic import Field

from spanfold.application.messages import DomainQuery, Micros
from spanfold.language.errors import InvalidInput
from spanfold.language.events import Tags, TagValue
from spanfold.language.times import as_datetime, as_timedelta

T = TypeVar("T")

MAX_LIMIT: Final = 1000
Limit = Annotated[int, Field(ge=1, le=MAX_LIMIT)]


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceReadModel:
    """A trace as the read models show it: a row of spanfold.traces. Without a TraceCreated it has no service, operation or
    perhaps start; while it is open, no end and no duration.
    """

    id: str
    service_name: str | None
    operation_name: str | None
    status: str
    start_time: int | None
    end_time: int | None
    duration_us: int | None
    tags: Tags
    span_count: int = 0
    error_count: int = 0
    error: str | None = None

    @property
    def duration(self) -> timedelta | None:
        return None if self.duration_us is None else as_timedelta(self.duration_us)

    @property
    def started_at(self) -> datetime | None:
        return None if self.start_time is None else as_datetime(self.start_time)

    @property
    def ended_at(self) -> datetime | None:
        return None if self.end_time is None else as_datetime(self.end_time)


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricReadModel:
    """The latest point of a series: `id` is the series id, `value` the number of a gauge or a sum, None of a histogram, which
    has `count` and `sum`.
    """

    id: str
    name: str
    service_name: str
    kind: str
    unit: str
    timestamp: int
    value: float | None
    labels: Tags
    count: int | None = None
    sum: float | None = None

    @property
    def measured_at(self) -> datetime:
        return as_datetime(self.timestamp)


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricPoint:
    """One point of a series."""

    timestamp: int
    value: float | None
    count: int | None = None
    sum: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricSeries:
    """A series with its points by time; `latest` is its last one at all, also outside of the range that was asked for."""

    latest: MetricReadModel
    points: tuple[MetricPoint, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceDependency:
    """`calls` from service `parent` to service `child`, `errors` of which failed."""

    parent: str
    child: str
    calls: int
    errors: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationStats:
    """What an operation of a service did: quantiles and mean of its durations in ms, of `calls` calls; None without calls."""

    service_name: str
    operation_name: str
    calls: int
    errors: int
    mean_ms: float | None
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some of what was found; `next_cursor` asks for what comes after, None when that is all."""

    items: tuple[T, ...]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a page of traces ends: traces are ordered by start, the latest first and those without one last, then by id."""

    start_time: int | None
    trace_id: str

    def __str__(self) -> str:
        """An opaque text that goes into a URL as it is."""
        return base64.urlsafe_b64encode(json.dumps([self.start_time, self.trace_id]).encode()).decode().rstrip("=")

    @classmethod
    def parse(cls, text: str) -> Self:
        """The inverse of str(). InvalidInput for a text that is no cursor."""
        try:
            start_time, trace_id = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        except (binascii.Error, ValueError, TypeError) as error:
            raise _no_cursor(text) from error
        known = start_time is None or (isinstance(start_time, int) and not isinstance(start_time, bool))
        if not known or not isinstance(trace_id, str):
            raise _no_cursor(text)
        return cls(start_time, trace_id)


def _no_cursor(text: str) -> InvalidInput:
    return InvalidInput(f"cursor {text!r}: give the next_cursor of the page before, or none")


@dataclass(frozen=True, slots=True, kw_only=True)
class GetTrace(DomainQuery[TraceReadModel | None]):
    """One trace; None when no event of it is known."""

    trace_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FindTraces(DomainQuery[Page[TraceReadModel]]):
    """Traces that fit all that is given, the latest first. They have all of `tags`; they started at or after `start_from`
    and before `start_before`; the bounds of the duration belong to it.
    """

    service_name: str | None = None
    operation_name: str | None = None
    status: str | None = None
    tags: Mapping[str, TagValue] = field(default_factory=dict)
    min_duration_us: int | None = None
    max_duration_us: int | None = None
    start_from: Micros | None = None
    start_before: Micros | None = None
    limit: Limit = 100
    cursor: str | None = None

    def __post_init__(self) -> None:
        _refuse_limit(self.limit)
        _refuse_empty("start_from", self.start_from, "start_before", self.start_before)
        longest = None if self.max_duration_us is None else self.max_duration_us + 1
        _refuse_empty("min_duration_us", self.min_duration_us, "max_duration_us", longest)
        if self.cursor is not None:
            Cursor.parse(self.cursor)


@dataclass(frozen=True, slots=True, kw_only=True)
class GetMetricsByName(DomainQuery[tuple[MetricReadModel, ...]]):
    """The latest point of every series of this name, of one service or of all, at most `limit` of them by series id."""

    name: str
    service_name: str | None = None
    limit: Limit = MAX_LIMIT

    def __post_init__(self) -> None:
        _refuse_limit(self.limit)


@dataclass(frozen=True, slots=True, kw_only=True)
class GetMetricSeries(DomainQuery[MetricSeries | None]):
    """The points of one series from `start_from` (with it) to `start_before` (without it), at most the last `limit` of them;
    None when the series is unknown.
    """

    series_id: str
    start_from: Micros | None = None
    start_before: Micros | None = None
    limit: Limit = MAX_LIMIT

    def __post_init__(self) -> None:
        _refuse_limit(self.limit)
        _refuse_empty("start_from", self.start_from, "start_before", self.start_before)


@dataclass(frozen=True, slots=True, kw_only=True)
class GetServiceDependencies(DomainQuery[tuple[ServiceDependency, ...]]):
    """Who calls whom, in the minutes from `start_from` (with it) to `start_before` (without it)."""

    start_from: Micros | None = None
    start_before: Micros | None = None

    def __post_init__(self) -> None:
        _refuse_empty("start_from", self.start_from, "start_before", self.start_before)


@dataclass(frozen=True, slots=True, kw_only=True)
class GetOperationStats(DomainQuery[tuple[OperationStats, ...]]):
    """Calls, errors and durations by operation, in the minutes from `start_from` (with it) to `start_before` (without it)."""

    service_name: str | None = None
    operation_name: str | None = None
    start_from: Micros | None = None
    start_before: Micros | None = None

    def __post_init__(self) -> None:
        _refuse_empty("start_from", self.start_from, "start_before", self.start_before)


QUERIES: Final[tuple[type[DomainQuery[Any]], ...]] = (
    GetTrace, FindTraces, GetMetricsByName, GetMetricSeries, GetServiceDependencies, GetOperationStats,
)  # fmt: skip


def _refuse_limit(limit: int) -> None:
    if not 1 <= limit <= MAX_LIMIT:
        raise InvalidInput(f"limit: expected 1 to {MAX_LIMIT}, got {limit}")


def _refuse_empty(low_name: str, low: int | None, high_name: str, high: int | None) -> None:
    if low is not None and high is not None and low >= high:
        raise InvalidInput(f"{low_name} must lie before {high_name}: nothing lies between {low} and {high}")
