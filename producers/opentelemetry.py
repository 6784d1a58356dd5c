"""OpenTelemetry's spans as events: one line in an application whose tracing is already set up.

    provider.add_span_processor(SpanfoldSpanProcessor())

The settings come from the environment (SPANFOLD_KAFKA_BOOTSTRAP) unless a publisher is given.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
from opentelemetry.trace import SpanContext, StatusCode, format_span_id, format_trace_id

from producers.attributes import tags_of, text_of
from producers.publisher import TelemetryPublisher
from producers.throttled_log import ThrottledLog
from spanfold.events import SpanRecorded, TraceCompleted, TraceCreated, TraceEvent, TraceFailed
from spanfold.settings import settings

SHUTDOWN_S: Final = 10.0
NS_PER_US: Final = 1000


class SpanfoldSpanProcessor(SpanProcessor):
    """Publishes what the SDK records, sampled spans only:

    - a root span's start (a span without any parent, local or remote) → TraceCreated, at its start time;
    - every span's end → SpanRecorded, at its end time;
    - a root span's end → TraceFailed when its status is error, else TraceCompleted, at its end time.

    Nanoseconds become microseconds by rounding down; a span whose clock went backwards ends when it started. Attributes
    become tags as producers.attributes says. An event's id is derived from the span, so the same span is the same
    event.

    User code is never disturbed: nothing raises, and with the publisher made here (policy "drop") nothing waits. What
    went wrong is counted in `publisher.counts()` and logged, at most one line in ten seconds.
    """

    def __init__(self, publisher: TelemetryPublisher | None = None) -> None:
        """Publish through `publisher`, which its owner closes; without one, make one that drops and close it at shutdown.

        Misconfigured when no Kafka is named, here rather than at the first span.
        """
        self.publisher = publisher or TelemetryPublisher(settings(), on_full="drop")
        self._owns_publisher = publisher is None
        self._log = ThrottledLog("spanfold.opentelemetry")
        self._busy = threading.local()

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        self._publish(_events_at_start, span)

    def on_end(self, span: ReadableSpan) -> None:
        self._publish(_events_at_end, span)

    def shutdown(self) -> None:
        """Flush, for SHUTDOWN_S at most."""
        if self._owns_publisher:
            self.publisher.close(SHUTDOWN_S)
        else:
            self.publisher.flush(SHUTDOWN_S)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Whether everything published so far has its outcome."""
        return self.publisher.flush(timeout_millis / 1000) == 0

    def _publish(self, events: Callable[[ReadableSpan], Iterator[TraceEvent]], span: ReadableSpan) -> None:
        # an instrumented Kafka client makes a span of each publish, which must not be published in its turn
        if getattr(self._busy, "publishing", False):
            return
        self._busy.publishing = True
        try:
            for event in events(span):
                self.publisher.publish(event)
        except Exception as error:  # whatever it is, the application goes on
            self._log.warning("a span was not published", span=span.name, reason=repr(error))
        finally:
            self._busy.publishing = False


def _events_at_start(span: ReadableSpan) -> Iterator[TraceEvent]:
    if span.parent is None and _sampled(span):
        start = _us(span.start_time)
        yield TraceCreated(
            aggregate_id=_trace_id(span),
            occurred_at=start,
            source=_source(span),
            service_name=_service(span),
            operation_name=text_of(span.name),
            start_time=start,
            tags=tags_of(span.attributes),
        )


def _events_at_end(span: ReadableSpan) -> Iterator[TraceEvent]:
    if not _sampled(span):
        return
    yield _recorded(span)
    if span.parent is None:
        yield _failed(span) if span.status.status_code is StatusCode.ERROR else _completed(span)


def _recorded(span: ReadableSpan) -> SpanRecorded:
    return SpanRecorded(
        aggregate_id=_trace_id(span),
        occurred_at=_end(span),
        source=_source(span),
        span_id=format_span_id(_context(span).span_id),
        parent_span_id=format_span_id(span.parent.span_id) if span.parent else None,
        service_name=_service(span),
        operation_name=text_of(span.name),
        start_time=_us(span.start_time),
        end_time=_end(span),
        kind=span.kind.name.lower(),
        status=span.status.status_code.name.lower(),
        status_message=text_of(span.status.description) if span.status.description else None,
        tags=tags_of(span.attributes),
        events=tuple(_happenings(span)),
        links=tuple(_links(span)),
    )


def _completed(span: ReadableSpan) -> TraceCompleted:
    return TraceCompleted(
        aggregate_id=_trace_id(span),
        occurred_at=_end(span),
        source=_source(span),
        end_time=_end(span),
        tags=tags_of(span.attributes),
    )


def _failed(span: ReadableSpan) -> TraceFailed:
    return TraceFailed(
        aggregate_id=_trace_id(span),
        occurred_at=_end(span),
        source=_source(span),
        error=text_of(span.status.description or _exception(span) or span.name),
        end_time=_end(span),
        tags=tags_of(span.attributes),
    )


def _exception(span: ReadableSpan) -> str | None:
    """What the last recorded exception said."""
    for event in reversed(span.events):
        if event.name == "exception" and event.attributes:
            said = event.attributes.get("exception.message") or event.attributes.get("exception.type")
            return str(said) if said else None
    return None


def _happenings(span: ReadableSpan) -> Iterator[Mapping[str, Any]]:
    for event in span.events:
        yield {"name": text_of(event.name), "time": _us(event.timestamp), "attributes": tags_of(event.attributes)}


def _links(span: ReadableSpan) -> Iterator[Mapping[str, Any]]:
    for link in span.links:
        yield {
            "trace_id": format_trace_id(link.context.trace_id),
            "span_id": format_span_id(link.context.span_id),
            "attributes": tags_of(link.attributes),
        }


def _context(span: ReadableSpan) -> SpanContext:
    context = span.get_span_context()
    if context is None:
        raise ValueError("a span without a context")
    return context


def _sampled(span: ReadableSpan) -> bool:
    return _context(span).trace_flags.sampled


def _trace_id(span: ReadableSpan) -> str:
    return format_trace_id(_context(span).trace_id)


def _us(nanoseconds: int | None) -> int:
    if nanoseconds is None:
        raise ValueError("a span without a time")
    return nanoseconds // NS_PER_US


def _end(span: ReadableSpan) -> int:
    return max(_us(span.end_time), _us(span.start_time))


def _service(span: ReadableSpan) -> str:
    return text_of(str(span.resource.attributes.get("service.name") or "unknown_service"))


def _source(span: ReadableSpan) -> str:
    instance = span.resource.attributes.get("service.instance.id")
    return f"{_service(span)}/{text_of(str(instance))}" if instance else _service(span)
