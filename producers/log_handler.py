"""A handler for the standard library's logging: what an application logs becomes events.

logging.getLogger().addHandler(SpanfoldLogHandler())
"""

import logging
import traceback
from collections.abc import Iterator
from typing import Any, Final

from spanfold.language.events import LogRecorded, Tags
from spanfold.language.extras import needs
from spanfold.language.severities import SEVERITIES
from spanfold.producers.attributes import any_text, shortened
from spanfold.producers.event_sink import DELIVERY_S, EventSink
from spanfold.producers.logs import REMEMBERED, Ordinals, log_tags
from spanfold.producers.publisher import TelemetryPublisher
from spanfold.producers.resources import Origins, within_scope

with needs("otel", __name__):
    from opentelemetry import trace
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.trace import Span, format_span_id, format_trace_id

US_PER_S: Final = 1_000_000

_PYTHONS_OWN: Final = logging.LogRecord("", 0, "", 0, "", (), None).__dict__.keys() | {
    "asctime", "message", "taskName",
    # what OpenTelemetry's logging instrumentation adds: the event has fields for it
    "otelSpanID", "otelTraceID", "otelTraceSampled", "otelServiceName",
}  # fmt: skip

_SEVERITIES: Final = (
    (logging.CRITICAL, SEVERITIES["FATAL"]),
    (logging.ERROR, SEVERITIES["ERROR"]),
    (logging.WARNING, SEVERITIES["WARN"]),
    (logging.INFO, SEVERITIES["INFO"]),
    (logging.DEBUG, SEVERITIES["DEBUG"]),
    (1, SEVERITIES["TRACE"]),
)


class SpanfoldLogHandler(logging.Handler):
    """Publishes log records as LogRecorded: all that its logger passes, or those from `level` on:

    - as body, the message as it was logged; the level's name, and its number in OpenTelemetry (CRITICAL is 21, FATAL);
    - the ids of the span that is current where the record was logged;
    - as tags: what was given as `extra`, code.file.path, code.function.name and code.line.number, and of the exception, if there
      is one, exception.type, exception.message and exception.stacktrace;
    - as scope, the logger's name.

    The service and the resource are `service_name`, else those of the current span, else of the global TracerProvider, else
    of the environment (OTEL_SERVICE_NAME). Records that are equal in all this and in their time, in µs, are events of their own
    by their ordinal: the handler counts them. What publishing itself logs is left out. Texts beyond attributes.LONGEST_TEXT
    characters lose their middle. User code is never disturbed: nothing raises, and with the publisher made here nothing waits.
    """

    def __init__(
        self,
        publisher: TelemetryPublisher | None = None,
        *,
        level: int | str = logging.NOTSET,
        service_name: str | None = None,
    ) -> None:
        """Publish through `publisher`, which its owner closes; without one, make one that drops, and close it with this
        handler. Where no Kafka is named, the log says so once and everything is dropped.
        """
        super().__init__(level)
        self._given = Resource({"service.name": service_name}) if service_name else None
        self._environment = Resource.create()
        self._origins = Origins()
        self._ordinals = Ordinals(REMEMBERED)
        self._sink = EventSink("log record", publisher)
        self.publisher = self._sink.publisher

    def emit(self, record: logging.LogRecord) -> None:
        """Publish it."""
        if not EventSink.is_own_logger(record.name):
            self._sink.send(record, self._events_of)

    def flush(self) -> None:
        """Wait until everything published so far has its outcome, for DELIVERY_S at most."""
        self._sink.flush(DELIVERY_S)

    def close(self) -> None:
        """Flush, and let go of the publisher that was made here."""
        self._sink.close(DELIVERY_S)
        super().close()

    def _events_of(self, record: logging.LogRecord) -> Iterator[LogRecorded]:
        span = trace.get_current_span()
        within = span.get_span_context()
        trace_id = format_trace_id(within.trace_id) if within.is_valid else None
        origin = within_scope(self._origins.of(self._resource(span), None), any_text(record.name))
        logged_at = round(record.created * US_PER_S)
        yield self._ordinals.numbered(
            LogRecorded(
                aggregate_id=trace_id or origin["service_name"],
                occurred_at=logged_at,
                severity_number=_severity(record),
                severity_text=any_text(record.levelname),
                body=shortened(_message(record)),
                observed_time=logged_at,
                trace_id=trace_id,
                span_id=format_span_id(within.span_id) if within.is_valid else None,
                tags=_tags(record),
                **origin,
            )
        )

    def _resource(self, span: Span) -> Resource:
        if self._given:
            return self._given
        for knows in (span, trace.get_tracer_provider()):
            if isinstance(resource := getattr(knows, "resource", None), Resource):
                return resource
        return self._environment


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # arguments that don't fit the format: a mistake in the application, and still an error logged
        return f"{record.msg} {record.args!r}"


def _severity(record: logging.LogRecord) -> int:
    return next((number for level, number in _SEVERITIES if record.levelno >= level), 0)


def _tags(record: logging.LogRecord) -> Tags:
    extra: dict[str, Any] = {name: value for name, value in record.__dict__.items() if name not in _PYTHONS_OWN}
    return log_tags(
        {
            "code.file.path": record.pathname,
            "code.function.name": record.funcName or "",
            "code.line.number": record.lineno,
            **_exception(record),
            **extra,
        }
    )


def _exception(record: logging.LogRecord) -> dict[str, str]:
    kind, error, where = record.exc_info or (None, None, None)
    if kind is None or error is None:
        stack = record.exc_text or record.stack_info
        return {"exception.stacktrace": stack} if stack else {}
    return {
        "exception.type": kind.__qualname__
        if kind.__module__ == "builtins"
        else f"{kind.__module__}.{kind.__qualname__}",
        "exception.message": any_text(error),
        "exception.stacktrace": "".join(traceback.format_exception(kind, error, where)),
    }
