"""The queries on the read models, and their results. Times are µs since 1970 UTC, durations µs."""

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
    """A row of spanfold.traces. Without a TraceCreated it has no service and operation, and its start is that of its first span;
    while the trace is open it has no end and no duration.
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
    """The latest point of a series. `id` is the series id. A gauge or a sum has a `value`, a histogram has `count` and `sum`."""

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
    """A point of a series."""

    timestamp: int
    value: float | None
    count: int | None = None
    sum: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricSeries:
    """A series with its points in a time range, ordered by time. `latest` is its latest point, which may be outside the range."""

    latest: MetricReadModel
    points: tuple[MetricPoint, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceDependency:
    """Service `parent` called service `child`, `calls` times; `errors` of these calls failed."""

    parent: str
    child: str
    calls: int
    errors: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationStats:
    """Calls, errors, mean duration and quantiles (in ms) of an operation; mean and quantiles are None without calls."""

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
    """A page of results. `next_cursor` gets the next page; it is None on the last one."""

    items: tuple[T, ...]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a page of traces ends. Traces are ordered by start, the latest first and those without a start last, then by id."""

    start_time: int | None
    trace_id: str

    def __str__(self) -> str:
        """Opaque text that can be used in a URL without escaping."""
        return base64.urlsafe_b64encode(json.dumps([self.start_time, self.trace_id]).encode()).decode().rstrip("=")

    @classmethod
    def parse(cls, text: str) -> Self:
        """The inverse of str(). InvalidInput if the text is not a cursor."""
        try:
            start_time, trace_id = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        except (binascii.Error, ValueError, TypeError) as error:
            raise _no_cursor(text) from error
        known = start_time is None or (isinstance(start_time, int) and not isinstance(start_time, bool))
        if not known or not isinstance(trace_id, str):
            raise _no_cursor(text)
        return cls(start_time, trace_id)


def _no_cursor(text: str) -> InvalidInput:
    return InvalidInput(f"cursor {text!r} is invalid: use the next_cursor of the previous page, or no cursor")


@dataclass(frozen=True, slots=True, kw_only=True)
class GetTrace(DomainQuery[TraceReadModel | None]):
    """The trace with this id, or else with this trace_hex; None if no event of it is known."""

    trace_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FindTraces(DomainQuery[Page[TraceReadModel]]):
    """Traces that match all given conditions, the latest first. They have all of `tags`, and started at or after `start_from` and
    before `start_before`. The bounds of the duration are inclusive.
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
        _refuse_empty(self.start_from, self.start_before)
        shortest, longest = self.min_duration_us, self.max_duration_us
        if shortest is not None and longest is not None and shortest > longest:
            raise InvalidInput(f"min_duration_us must not exceed max_duration_us, got {shortest} and {longest}")
        if self.cursor is not None:
            Cursor.parse(self.cursor)


@dataclass(frozen=True, slots=True, kw_only=True)
class GetMetricsByName(DomainQuery[tuple[MetricReadModel, ...]]):
    """The latest points of the series with this name, of one service or of all: up to `limit`, ordered by series id."""

    name: str
    service_name: str | None = None
    limit: Limit = MAX_LIMIT

    def __post_init__(self) -> None:
        _refuse_limit(self.limit)


@dataclass(frozen=True, slots=True, kw_only=True)
class GetMetricSeries(DomainQuery[MetricSeries | None]):
    """The points of a series at or after `start_from` and before `start_before`, the last `limit` of them; None if the series is
    unknown.
    """

    series_id: str
    start_from: Micros | None = None
    start_before: Micros | None = None
    limit: Limit = MAX_LIMIT

    def __post_init__(self) -> None:
        _refuse_limit(self.limit)
        _refuse_empty(self.start_from, self.start_before)


@dataclass(frozen=True, slots=True, kw_only=True)
class GetServiceDependencies(DomainQuery[tuple[ServiceDependency, ...]]):
    """Which service calls which, in the minutes that begin at or after `start_from` and before `start_before`."""

    start_from: Micros | None = None
    start_before: Micros | None = None

    def __post_init__(self) -> None:
        _refuse_empty(self.start_from, self.start_before)


@dataclass(frozen=True, slots=True, kw_only=True)
class GetOperationStats(DomainQuery[tuple[OperationStats, ...]]):
    """Calls, errors and durations by operation, in the minutes that begin at or after `start_from` and before `start_before`."""

    service_name: str | None = None
    operation_name: str | None = None
    start_from: Micros | None = None
    start_before: Micros | None = None

    def __post_init__(self) -> None:
        _refuse_empty(self.start_from, self.start_before)


QUERIES: Final[tuple[type[DomainQuery[Any]], ...]] = (
    GetTrace, FindTraces, GetMetricsByName, GetMetricSeries, GetServiceDependencies, GetOperationStats,
)  # fmt: skip


def _refuse_limit(limit: int) -> None:
    if not 1 <= limit <= MAX_LIMIT:
        raise InvalidInput(f"limit: expected 1 to {MAX_LIMIT}, got {limit}")


def _refuse_empty(start_from: int | None, start_before: int | None) -> None:
    if start_from is not None and start_before is not None and start_from >= start_before:
        raise InvalidInput(f"start_from must be before start_before, got {start_from} and {start_before}")
