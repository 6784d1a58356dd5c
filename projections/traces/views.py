"""What users see of the traces projection, in schema `spanfold`."""

from typing import Final

from spanfold.projections.projection import View

VIEWS: Final = (
    View(
        name="traces",
        comment="One row a trace, from the events that the log has accepted of it.",
        select="""
            SELECT t.trace_id,
                   t.service_name,
                   t.operation_name,
                   coalesce(t.status, 'started') AS status,
                   coalesce(t.start_time, t.first_span_start) AS start_time,
                   t.end_time,
                   ((extract(epoch FROM t.end_time)
                     - extract(epoch FROM coalesce(t.start_time, t.first_span_start))) * 1000)
                       ::double precision AS duration_ms,
                   coalesce(t.created_tags, '{{}}') || coalesce(t.closed_tags, '{{}}') AS tags,
                   t.span_count,
                   t.error_count,
                   t.error,
                   CASE WHEN t.last_span_end > t.end_time
                        THEN (SELECT count(*) FROM {schema}.spans s
                               WHERE s.trace_id = t.trace_id AND s.end_time > t.end_time)
                        ELSE 0
                   END AS late_events,
                   t.version,
                   t.last_event_at
              FROM {schema}.traces t""",
        comments={
            "trace_id": "Aggregate id of the trace; 32 hex digits with OpenTelemetry.",
            "service_name": "Service of the root operation, from TraceCreated; null until that has come.",
            "operation_name": "Name of the root operation, from TraceCreated; null until that has come.",
            "status": "started, then what TraceCompleted says (completed unless it says otherwise), or failed.",
            "start_time": "From TraceCreated, else the earliest start of its spans.",
            "end_time": "From TraceCompleted or TraceFailed, the later event; null while the trace is open.",
            "duration_ms": "end_time - start_time in milliseconds; negative if the clocks that set them disagree.",
            "tags": "Attributes of TraceCreated, overlaid by those of TraceCompleted or TraceFailed.",
            "span_count": "Number of its spans, also of those that spanfold.retention_horizons says are gone.",
            "error_count": "Those of them with status error.",
            "error": "What TraceFailed said.",
            "late_events": "Its spans in spanfold.spans that ended after end_time.",
            "version": "Greatest version of its accepted events (offset + 1).",
            "last_event_at": "Greatest event time of its accepted events.",
        },
    ),
    View(
        name="spans",
        comment="One row a span, from SpanRecorded.",
        select="""
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
                   s.version
              FROM {schema}.spans s""",
        comments={
            "trace_id": "The trace that it belongs to.",
            "span_id": "Unique within the trace, but for the two halves of a span that client and server share.",
            "parent_span_id": "Null for a root span.",
            "service_name": "OpenTelemetry service.name.",
            "operation_name": "The span's name.",
            "kind": "internal, server, client, producer or consumer.",
            "status": "unset, ok or error.",
            "status_message": "Said with an error.",
            "start_time": "When it started, to the microsecond.",
            "end_time": "When it ended, to the microsecond.",
            "duration_ms": "end_time - start_time in milliseconds.",
            "tags": "Its attributes.",
            "events": "List of {{name, time, attributes}}; time in microseconds since 1970 UTC.",
            "links": "List of {{trace_id, span_id, attributes}}.",
            "version": "Version of its event in the journal (offset + 1).",
        },
    ),
    View(
        name="operation_minutes",
        comment="Calls of each operation in each minute. Names are cut to 200 characters.",
        select="""
            SELECT b.service_name,
                   b.operation_name,
                   b.minute,
                   sum(b.calls)::bigint AS calls,
                   sum(b.errors)::bigint AS errors,
                   (sum(b.duration_us) / 1000)::double precision AS duration_ms_sum,
                   jsonb_object_agg(b.upper_ms, b.calls) AS duration_histogram
              FROM (SELECT service_name, operation_name, minute, spanfold_core.bucket_upper_ms(bucket) AS upper_ms,
                           sum(calls) AS calls, sum(errors) AS errors, sum(duration_us) AS duration_us
                      FROM {schema}.operation_minutes
                     GROUP BY service_name, operation_name, minute, bucket) b
             GROUP BY b.service_name, b.operation_name, b.minute""",
        comments={
            "service_name": "OpenTelemetry service.name.",
            "operation_name": "Name of the spans.",
            "minute": "The minute in which they ended.",
            "calls": "How many there were.",
            "errors": "Those of them with status error.",
            "duration_ms_sum": "Sum of their durations in milliseconds.",
            "duration_histogram": "Calls by the upper bound of their duration in milliseconds; see spanfold.quantile.",
        },
    ),
    View(
        name="service_dependencies",
        comment="Calls from one service to another in each minute, from spans and their parents.",
        select="""
            SELECT parent, child, minute, sum(calls)::bigint AS calls, sum(errors)::bigint AS errors
              FROM {schema}.service_dependencies
             GROUP BY parent, child, minute""",
        comments={
            "parent": "The service that called.",
            "child": "The service that was called.",
            "minute": "The minute in which the called span ended.",
            "calls": "How many calls.",
            "errors": "Those whose called span has status error.",
        },
    ),
)
