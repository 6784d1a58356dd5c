"""What the answers must be, from the events themselves, in plain Python."""

import math
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

import pytest

from spanfold.application.queries import (
    FindTraces,
    GetMetricsByName,
    GetMetricSeries,
    GetOperationStats,
    GetServiceDependencies,
    MetricPoint,
    MetricReadModel,
    MetricSeries,
    OperationStats,
    ServiceDependency,
    TraceReadModel,
)
from spanfold.language.events import MetricUpdated, TraceEvent
from tests.support.trace_rows import Rows, told


def traces(events: Iterable[TraceEvent]) -> list[TraceReadModel]:
    """All of them, in the order of pages."""
    rows = told(events).traces
    found = [
        TraceReadModel(
            id=trace_id,
            duration_us=None if None in (row["start_time"], row["end_time"]) else row["end_time"] - row["start_time"],
            tags={name: _plain(value) for name, value in row["tags"]},
            **{
                name: row[name]
                for name in (
                    "service_name", "operation_name", "status", "start_time", "end_time", "span_count", "error_count",
                    "error",
                )
            },
        )
        for trace_id, row in rows.items()
    ]  # fmt: skip
    return sorted(found, key=lambda trace: (trace.start_time is None, -(trace.start_time or 0), trace.id))


def fits(trace: TraceReadModel, query: FindTraces) -> bool:
    start, duration = trace.start_time, trace.duration_us
    return all(
        (
            query.service_name in (None, trace.service_name),
            query.operation_name in (None, trace.operation_name),
            query.status in (None, trace.status),
            all(name in trace.tags and _has(trace.tags[name], value) for name, value in query.tags.items()),
            query.min_duration_us is None or (duration is not None and duration >= query.min_duration_us),
            query.max_duration_us is None or (duration is not None and duration <= query.max_duration_us),
            query.start_from is None or (start is not None and start >= query.start_from),
            query.start_before is None or (start is not None and start < query.start_before),
        )
    )


def dependencies(rows: Rows, query: GetServiceDependencies) -> tuple[ServiceDependency, ...]:
    sums: dict[tuple[str, str], list[int]] = {}
    for (parent, child, minute), row in rows.dependencies.items():
        if _within(minute, query):
            total = sums.setdefault((parent, child), [0, 0])
            total[0] += row["calls"]
            total[1] += row["errors"]
    return tuple(ServiceDependency(parent=p, child=c, calls=n, errors=e) for (p, c), (n, e) in sorted(sums.items()))


def stats(rows: Rows, query: GetOperationStats) -> tuple[OperationStats, ...]:
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for (service, operation, _, _, minute), row in rows.operations.items():
        wanted = (query.service_name or service)[:200], (query.operation_name or operation)[:200]
        if (service, operation) == wanted and _within(minute, query):
            groups.setdefault((service, operation), []).append(row)
    return tuple(_stats(service, operation, group) for (service, operation), group in sorted(groups.items()))


def _stats(service: str, operation: str, minutes: Sequence[Mapping[str, Any]]) -> OperationStats:
    bounds = sorted(
        float(bound) for row in minutes for bound, calls in row["duration_histogram"].items() for _ in range(calls)
    )
    calls = sum(row["calls"] for row in minutes)
    p50, p95, p99 = (bounds[math.ceil(Decimal(q) * calls) - 1] for q in ("0.5", "0.95", "0.99"))
    total_ms = sum(row["duration_ms_sum"].expected for row in minutes)
    return OperationStats(
        service_name=service, operation_name=operation, calls=calls, errors=sum(row["errors"] for row in minutes),
        mean_ms=pytest.approx(total_ms / calls, rel=1e-12),  # type: ignore[arg-type]  # equals any float that is as near
        p50_ms=p50, p95_ms=p95, p99_ms=p99,
    )  # fmt: skip


def latest(points: Iterable[MetricUpdated], query: GetMetricsByName) -> tuple[MetricReadModel, ...]:
    """Of several events for one point the greatest event id wins."""
    last: dict[str, MetricUpdated] = {}
    for each in points:
        held = last.get(each.aggregate_id)
        if held is None or (each.occurred_at, each.event_id) > (held.occurred_at, held.event_id):
            last[each.aggregate_id] = each
    found = [
        _latest(each)
        for _, each in sorted(last.items())
        if each.name == query.name and query.service_name in (None, each.service_name)
    ]
    return tuple(found[: query.limit])


def series(points: Sequence[MetricUpdated], query: GetMetricSeries) -> MetricSeries | None:
    own = [each for each in points if each.aggregate_id == query.series_id]
    if not own:
        return None
    by_time: dict[int, MetricUpdated] = {}
    for each in sorted(own, key=lambda each: each.event_id):
        by_time[each.occurred_at] = each
    ranged = [
        MetricPoint(timestamp=at, value=_real(each.value), count=each.count, sum=_real(each.sum))
        for at, each in sorted(by_time.items())
        if (query.start_from is None or at >= query.start_from)
        and (query.start_before is None or at < query.start_before)
    ]
    return MetricSeries(latest=_latest(by_time[max(by_time)]), points=tuple(ranged[-query.limit :]))


def _latest(each: MetricUpdated) -> MetricReadModel:
    return MetricReadModel(
        id=each.aggregate_id, name=each.name, service_name=each.service_name, kind=each.kind, unit=each.unit,
        timestamp=each.occurred_at, value=_real(each.value), labels=dict(each.labels), count=each.count,
        sum=_real(each.sum),
    )  # fmt: skip


def _real(value: float | None) -> float | None:
    return None if value is None else float(value)


def _within(minute: int, query: GetOperationStats | GetServiceDependencies) -> bool:
    after = query.start_from is None or minute >= query.start_from
    return after and (query.start_before is None or minute < query.start_before)


def _has(kept: Any, wanted: Any) -> bool:
    if isinstance(wanted, list):
        return isinstance(kept, list) and all(item in kept for item in wanted)
    return bool(kept == wanted) and isinstance(kept, bool) == isinstance(wanted, bool)


def _plain(value: Any) -> Any:
    """What tests.support.trace_rows.document made of the value, back again."""
    if isinstance(value, tuple):
        return value[1] if value[:1] in (("number",), ("constant",)) else [_plain(item) for item in value]
    return value
