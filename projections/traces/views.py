"""The public views of the traces projection, in schema `spanfold`."""

from typing import Final

from spanfold.projections.projection import View

VIEWS: Final = (
    View(
        name="traces",
        comment="One row per trace, folded from its accepted events.",
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
            "trace_id": "Id of the trace; 32 hex digits with OpenTelemetry.",
            "service_name": "Service of the root operation; null until TraceCreated has arrived.",
            "operation_name": "Name of the root operation; null until TraceCreated has arrived.",
            "status": "started; once the trace has ended, the status in TraceCompleted (by default completed), or failed.",
            "start_time": "From TraceCreated; until that has arrived, the earliest start of its spans.",
            "end_time": "From TraceCompleted or TraceFailed, whichever event is later; null while the trace is open.",
            "duration_ms": "end_time - start_time in milliseconds; negative if the two were set by clocks that disagree.",
            "tags": "Attributes of TraceCreated, overridden by those of TraceCompleted or TraceFailed.",
            "span_count": "Number of its spans, including old ones that were deleted (see spanfold.retention_horizons).",
            "error_count": "Number of its spans with status error, including deleted ones.",
            "error": "The error in TraceFailed; null if the trace has not failed.",
            "late_events": "Number of its spans in spanfold.spans that ended after end_time.",
            "version": "Greatest version among its accepted events (an event's version is its offset + 1).",
            "last_event_at": "Latest event time among its accepted events.",
        },
    ),
    View(
        name="spans",
        comment="One row per span, from SpanRecorded.",
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
        },
    ),
    View(
        name="operation_minutes",
        comment="Calls of each operation by minute. Names are cut to 200 characters.",
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
            "minute": "Start of the minute in which the spans ended.",
            "calls": "Number of spans.",
            "errors": "Number of spans with status error.",
            "duration_ms_sum": "Sum of the spans' durations in milliseconds.",
            "duration_histogram": "Number of spans by the upper bound of their duration in milliseconds; for spanfold.quantile.",
        },
    ),
    View(
        name="service_dependencies",
        comment="Calls from one service to another by minute, derived from spans and their parents.",
        select="""
            SELECT parent, child, minute, sum(calls)::bigint AS calls, sum(errors)::bigint AS errors
              FROM {schema}.service_dependencies
             GROUP BY parent, child, minute""",
        comments={
            "parent": "Name of the service that called, cut to 200 characters.",
            "child": "Name of the service that was called, cut to 200 characters.",
            "minute": "Start of the minute in which the called span ended.",
            "calls": "Number of calls.",
            "errors": "Number of calls whose called span has status error.",
        },
    ),
)
