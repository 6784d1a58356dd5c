"""Traces, who calls whom, and how long operations take: from the views of the projection `traces`."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from psycopg import sql

from spanfold.application.messages import Answer
from spanfold.application.queries import (
    Cursor,
    FindTraces,
    GetOperationStats,
    GetServiceDependencies,
    GetTrace,
    OperationStats,
    Page,
    ServiceDependency,
    TraceReadModel,
)
from spanfold.language.documents import canonical
from spanfold.projections.queries.micros import Time
from spanfold.projections.queries.reader import Question, Reader, Row, bounded
from spanfold.projections.traces.spans import ROLLUP_NAME_CHARACTERS

PROJECTION: Final = "traces"


def handlers(reader: Reader) -> Mapping[type[Any], Any]:
    """A handler for each of this module's queries."""

    async def get_trace(query: GetTrace) -> Answer[TraceReadModel | None]:
        question = Question(PROJECTION, sql.SQL(TRACE), sql.SQL("trace_id"), {"trace_id": query.trace_id})
        answer = await reader.find(question, query.at_least)
        return Answer(_trace(answer.rows[0]) if answer.rows else None, answer.reflects)

    async def find_traces(query: FindTraces) -> Answer[Page[TraceReadModel]]:
        answer = await reader.find(page_of_traces(query), query.at_least)
        return Answer(_page([_trace(row) for row in answer.rows], query.limit), answer.reflects)

    async def get_dependencies(query: GetServiceDependencies) -> Answer[tuple[ServiceDependency, ...]]:
        select, parameters = _of_minutes(DEPENDENCIES, query)
        answer = await reader.find(Question(PROJECTION, select, sql.SQL("parent, child"), parameters), query.at_least)
        return Answer(tuple(_dependency(row) for row in answer.rows), answer.reflects)

    async def get_stats(query: GetOperationStats) -> Answer[tuple[OperationStats, ...]]:
        select, parameters = _of_minutes(STATS, query, "service_name", "operation_name")
        order_by = sql.SQL("service_name, operation_name")
        answer = await reader.find(Question(PROJECTION, select, order_by, parameters), query.at_least)
        return Answer(tuple(_stats(row) for row in answer.rows), answer.reflects)

    return {
        GetTrace: get_trace,
        FindTraces: find_traces,
        GetServiceDependencies: get_dependencies,
        GetOperationStats: get_stats,
    }


def page_of_traces(query: FindTraces) -> Question:
    """One row more than the page has, so that it is known whether there is another. The index on start times serves order,
    range and cursor; traces without a start stand at its end, and are asked for apart because `<=` never finds them.
    """
    conditions, parameters = _conditions(query)
    at = None if query.cursor is None else Cursor.parse(query.cursor)
    started, unstarted = [sql.SQL("start_time IS NOT NULL"), *conditions], [sql.SQL("start_time IS NULL"), *conditions]
    if at is not None:
        parameters["after_id"] = at.trace_id
        if at.start_time is None:
            unstarted.append(sql.SQL("trace_id > %(after_id)s"))
        else:
            parameters["after_start"] = Time(at.start_time)
            started.append(sql.SQL(AFTER_START))
    parts = [] if at is not None and at.start_time is None else [started]
    if not _needs_start(query):
        parts.append(unstarted)
    parameters["rows"] = query.limit + 1
    branches = [sql.SQL(BRANCH).format(where=sql.SQL(" AND ").join(part)) for part in parts]
    return Question(PROJECTION, sql.SQL(PAGE).format(branches=_union(branches)), sql.SQL(BY_START), parameters)


def _union(branches: Sequence[sql.Composable]) -> sql.Composable:
    return sql.SQL(" UNION ALL ").join(branches) if branches else sql.SQL(NO_TRACES)


def _needs_start(query: FindTraces) -> bool:
    bounds = (query.start_from, query.start_before, query.min_duration_us, query.max_duration_us)
    return any(bound is not None for bound in bounds)


def _conditions(query: FindTraces) -> tuple[list[sql.Composable], dict[str, Any]]:
    given: dict[str, Any] = {name: getattr(query, name) for name in TRACE_CONDITIONS}
    given["tags"] = canonical(query.tags, "object", "tags") if query.tags else None
    for name in ("start_from", "start_before"):
        given[name] = None if given[name] is None else Time(given[name])
    parameters = {name: value for name, value in given.items() if value is not None}
    return [sql.SQL(TRACE_CONDITIONS[name]) for name in parameters], parameters


def _of_minutes(
    select: str, query: GetOperationStats | GetServiceDependencies, *names: str
) -> tuple[sql.Composable, dict[str, Any]]:
    conditions, parameters = bounded(query, MINUTE_CONDITIONS)
    for name in names:
        if (value := getattr(query, name)) is not None:
            conditions.append(sql.SQL("{} = {}").format(sql.Identifier(name), sql.Placeholder(name)))
            parameters[name] = value[:ROLLUP_NAME_CHARACTERS]
    return sql.SQL(select).format(where=sql.SQL(" AND ").join([sql.SQL("true"), *conditions])), parameters


def _page(traces: Sequence[TraceReadModel], limit: int) -> Page[TraceReadModel]:
    items = tuple(traces[:limit])
    more = len(traces) > limit
    return Page(items, str(Cursor(items[-1].start_time, items[-1].id)) if more else None)


def _trace(row: Row) -> TraceReadModel:
    return TraceReadModel(
        id=row["trace_id"],
        service_name=row["service_name"],
        operation_name=row["operation_name"],
        status=row["status"],
        start_time=row["start_time"],
        end_time=row["end_time"],
        duration_us=None if None in (row["start_time"], row["end_time"]) else row["end_time"] - row["start_time"],
        tags=row["tags"],
        span_count=row["span_count"],
        error_count=row["error_count"],
        error=row["error"],
    )


def _dependency(row: Row) -> ServiceDependency:
    return ServiceDependency(parent=row["parent"], child=row["child"], calls=row["calls"], errors=row["errors"])


def _stats(row: Row) -> OperationStats:
    return OperationStats(
        service_name=row["service_name"],
        operation_name=row["operation_name"],
        calls=row["calls"],
        errors=row["errors"],
        mean_ms=row["duration_ms_sum"] / row["calls"],
        p50_ms=row["p50_ms"],
        p95_ms=row["p95_ms"],
        p99_ms=row["p99_ms"],
    )


COLUMNS: Final = """
trace_id, service_name, operation_name, status, start_time, end_time, tags, span_count, error_count, error
"""

TRACE: Final = f"""
SELECT {COLUMNS}
  FROM spanfold.traces
 WHERE trace_id = coalesce((SELECT trace_id FROM spanfold.traces WHERE trace_id = %(trace_id)s),
                           (SELECT min(trace_id) FROM spanfold.traces WHERE trace_hex = %(trace_id)s))
"""

BY_START: Final = "start_time DESC NULLS LAST, trace_id"

BRANCH: Final = f"""
(SELECT {COLUMNS} FROM spanfold.traces WHERE {{where}} ORDER BY {BY_START} LIMIT %(rows)s)
"""

PAGE: Final = f"SELECT * FROM ({{branches}}) AS branches ORDER BY {BY_START} LIMIT %(rows)s"

NO_TRACES: Final = f"SELECT {COLUMNS} FROM spanfold.traces WHERE false"

AFTER_START: Final = "start_time <= %(after_start)s AND (start_time < %(after_start)s OR trace_id > %(after_id)s)"

DURATION_US: Final = "(extract(epoch FROM end_time) - extract(epoch FROM start_time)) * 1000000"

TRACE_CONDITIONS: Final = {
    "service_name": "service_name = %(service_name)s",
    "operation_name": "operation_name = %(operation_name)s",
    "status": "status = %(status)s",
    "tags": "tags @> %(tags)s::jsonb",
    "min_duration_us": f"{DURATION_US} >= %(min_duration_us)s",
    "max_duration_us": f"{DURATION_US} <= %(max_duration_us)s",
    "start_from": "start_time >= %(start_from)s",
    "start_before": "start_time < %(start_before)s",
}
"""By the field of FindTraces that asks for it."""

MINUTE_CONDITIONS: Final = {"start_from": "minute >= %(start_from)s", "start_before": "minute < %(start_before)s"}

DEPENDENCIES: Final = """
SELECT parent, child, sum(calls)::bigint AS calls, sum(errors)::bigint AS errors
  FROM spanfold.service_dependencies
 WHERE {where}
 GROUP BY parent, child
"""

STATS: Final = """
SELECT service_name, operation_name, sum(calls)::bigint AS calls, sum(errors)::bigint AS errors,
       sum(duration_ms_sum) AS duration_ms_sum,
       spanfold.p50(duration_histogram) AS p50_ms,
       spanfold.p95(duration_histogram) AS p95_ms,
       spanfold.p99(duration_histogram) AS p99_ms
  FROM spanfold.operation_minutes
 WHERE {where}
 GROUP BY service_name, operation_name
"""
