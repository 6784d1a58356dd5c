"""The public views of the traces projection, in schema `spanfold`."""

from typing import Final

from spanfold.projections import resources
from spanfold.projections.projection import View
from spanfold.projections.traces.tables import IS_CLOSED, IS_CREATED, SHOWN_START

VIEWS: Final = (
    View(
        name="traces",
        comment="One row per trace, folded from its accepted events.",
        select=f"""
            SELECT t.trace_id,
                   coalesce(t.shown_service_name, e.service_name) AS service_name,
                   coalesce(t.shown_operation_name, e.operation_name) AS operation_name,
                   t.shown_status AS status,
                   t.shown_start AS start_time,
                   t.shown_end AS end_time,
                   ((extract(epoch FROM t.shown_end) - extract(epoch FROM t.shown_start)) * 1000)
                       ::double precision AS duration_ms,
                   t.shown_tags AS tags,
                   t.span_count,
                   t.error_count,
                   t.shown_error AS error,
                   t.has_root,
                   CASE WHEN t.last_span_end > t.shown_end
                        THEN (SELECT count(*) FROM {{schema}}.spans s
                               WHERE s.trace_id = t.trace_id AND s.end_time > t.shown_end)
                        ELSE 0
                   END AS late_events,
                   t.version,
                   t.last_event_at,
                   spanfold.trace_hex(t.trace_id) AS trace_hex
              FROM (SELECT trace_id, span_count, error_count, last_span_end, version, last_event_at,
                           created_at IS NOT NULL OR closed_at IS NOT NULL AS has_root,
                           CASE WHEN {IS_CREATED} THEN service_name END AS shown_service_name,
                           CASE WHEN {IS_CREATED} THEN operation_name END AS shown_operation_name,
                           CASE WHEN {IS_CLOSED} THEN status
                                WHEN {IS_CREATED} THEN 'started'
                                ELSE 'incomplete'
                           END AS shown_status,
                           {SHOWN_START} AS shown_start,
                           CASE WHEN {IS_CLOSED} THEN end_time
                                WHEN created_at IS NULL AND closed_at IS NULL THEN last_span_end
                           END AS shown_end,
                           CASE WHEN {IS_CREATED} THEN created_tags ELSE '{{{{}}}}' END
                               || CASE WHEN {IS_CLOSED} THEN closed_tags ELSE '{{{{}}}}' END AS shown_tags,
                           CASE WHEN {IS_CLOSED} THEN error END AS shown_error
                      FROM {{schema}}.traces) t
              LEFT JOIN LATERAL (
                    SELECT s.service_name, s.operation_name
                      FROM {{schema}}.spans s
                     WHERE NOT t.has_root AND s.trace_id = t.trace_id
                     ORDER BY s.start_time, s.span_id, s.service_name, s.kind, s.end_time, s.event_id
                     LIMIT 1) e ON true""",
        comments={
            "trace_id": "Id of the trace; 32 hex digits with OpenTelemetry.",
            "service_name": "Service of the root span, null until TraceCreated has come; without a root that of the first span.",
            "operation_name": "Name of the root span, null until TraceCreated has come; without a root that of the first span.",
            "status": "started, then what TraceCompleted says (usually completed), or failed; incomplete without a root.",
            "start_time": "Start of the root span, else the earliest start of its spans.",
            "end_time": "End of the root span, null while the trace is open; without a root the latest end of its spans.",
            "has_root": "Whether TraceCreated, TraceCompleted or TraceFailed has come; of several roots the first is shown.",
            "duration_ms": "end_time - start_time in milliseconds; negative if the two were set by clocks that disagree.",
            "tags": "Attributes of TraceCreated, overridden by those of TraceCompleted or TraceFailed.",
            "span_count": "Number of its spans, including old ones that were deleted (see spanfold.retention_horizons).",
            "error_count": "Number of its spans with status error, including deleted ones.",
            "error": "The error in TraceFailed; null if the trace has not failed.",
            "late_events": "Number of its spans in spanfold.spans that ended after end_time.",
            "version": "Greatest version among its accepted events (an event's version is its offset + 1).",
            "last_event_at": "Latest event time among its accepted events.",
            "trace_hex": "trace_id as 32 hex digits: itself, or its MD5 if it is another text.",
        },
    ),
    View(
        name="spans",
        comment="One row per span, from SpanRecorded.",
        select=f"""
            SELECT s.trace_id,
                   s.span_id,
                   s.parent_span_id,
                   s.service_name,
                   s.operation_name,
                   s.kind,
                   s.status,
                   s.status_message,
                   s.start_time,
                   s.end_time,
                   ((extract(epoch FROM s.end_time) - extract(epoch FROM s.start_time)) * 1000)
                       ::double precision AS duration_ms,
                   s.tags,
                   s.events,
                   s.links,
                   s.version,
                   spanfold.trace_hex(s.trace_id) AS trace_hex,
                   {resources.SHOWN}
              FROM {{schema}}.spans s
              LEFT JOIN {{schema}}.resources r ON r.resource_id = s.resource_id""",
        comments={
            "trace_id": "Id of the trace that it belongs to; see spanfold.traces.",
            "span_id": "Unique within the trace, except that client and server may share one (Zipkin).",
            "parent_span_id": "span_id of its parent; null for a root span.",
            "service_name": "OpenTelemetry service.name.",
            "operation_name": "The span's name.",
            "kind": "internal, server, client, producer or consumer.",
            "status": "unset, ok or error.",
            "status_message": "Description of the error, if the status is error.",
            "start_time": "When it started, to the microsecond.",
            "end_time": "When it ended, to the microsecond.",
            "duration_ms": "end_time - start_time in milliseconds.",
            "tags": "Its attributes.",
            "events": "Events within the span: list of {{name, time, attributes}}, time in microseconds since 1970 UTC.",
            "links": "Links to other spans: list of {{trace_id, span_id, attributes}}.",
            "version": "Version of its event in spanfold.journal (offset + 1).",
            "trace_hex": "trace_id as 32 hex digits: itself, or its MD5 if it is another text.",
            **resources.SHOWN_COMMENTS,
        },
    ),
    View(
        name="operation_minutes",
        comment="Calls of each operation in each minute. Names are cut to 200 characters.",
        select="""
            SELECT service_name,
                   operation_name,
                   kind,
                   route,
                   minute,
                   sum(calls)::bigint AS calls,
                   sum(errors)::bigint AS errors,
                   (sum(duration_us) / 1000)::double precision AS duration_ms_sum,
                   ROW(array_agg(durations ORDER BY partition))::spanfold.histogram AS duration_histogram
              FROM {schema}.operation_minutes
             GROUP BY service_name, operation_name, kind, route, minute""",
        comments={
            "service_name": "OpenTelemetry service.name.",
            "operation_name": "Name of the spans.",
            "kind": "internal, server, client, producer or consumer.",
            "route": "Attribute http.route of the spans; empty if they have none.",
            "minute": "The minute in which they ended.",
            "calls": "How many there were.",
            "errors": "Those of them with status error.",
            "duration_ms_sum": "Sum of their durations in milliseconds.",
            "duration_histogram": "Their durations: spanfold.p99(duration_histogram), spanfold.quantile(0.9, …).",
        },
    ),
    View(
        name="service_dependencies",
        comment="Calls from one service to another in each minute, from spans and their parents.",
        select="""
            SELECT parent,
                   child,
                   minute,
                   sum(calls)::bigint AS calls,
                   sum(errors)::bigint AS errors,
                   (sum(duration_us) / 1000)::double precision AS duration_ms_sum,
                   ROW(array_agg(durations ORDER BY partition))::spanfold.histogram AS duration_histogram
              FROM {schema}.service_dependencies
             GROUP BY parent, child, minute""",
        comments={
            "parent": "The service that called.",
            "child": "The service that was called.",
            "minute": "The minute in which the called span ended.",
            "calls": "How many calls; of a span's parents at most one of each role (caller, callee, other) counts.",
            "errors": "Those whose called span has status error.",
            "duration_ms_sum": "Sum of the called spans' durations in milliseconds.",
            "duration_histogram": "The called spans' durations: spanfold.p99(duration_histogram).",
        },
    ),
)
