"""A trace: an operation of one service, with the spans that it caused in others."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum

from spanfold.application.domain.ids import ServiceId, TraceId
from spanfold.application.domain.spans import Span
from spanfold.language.errors import CommandRefused
from spanfold.language.events import TagValue
from spanfold.language.times import as_datetime, as_timedelta


class TraceStatus(StrEnum):
    STARTED = "started"
    COMPLETED = "completed"
    FAILED = "failed"


Tags = Mapping[str, TagValue]
SpanKey = tuple[str, str, str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """An immutable trace; a method that changes it returns the new one.

    `start` and `end` are µs since 1970 UTC; `end` is None while the trace is open. `error` is set if it failed. `tags` were known
    at its start, `closing_tags` at its end.
    """

    id: TraceId
    service_id: ServiceId
    operation_name: str
    start: int
    end: int | None = None
    status: TraceStatus | str = TraceStatus.STARTED
    error: str | None = None
    spans: tuple[Span, ...] = ()
    tags: Tags = field(default_factory=dict)
    closing_tags: Tags = field(default_factory=dict)

    def add_span(self, span: Span) -> "Trace":
        """The trace with this span. Adding the same span again changes nothing; adding it with a later end replaces it. A trace
        that has ended takes spans too: they may be late. CommandRefused when the trace has a different span with this id.
        """
        present = {self.key_of(other): other for other in self.spans}.get(self.key_of(span))
        if present is None:
            return replace(self, spans=(*self.spans, span))
        if span.end > present.end:
            return replace(self, spans=tuple(span if other is present else other for other in self.spans))
        if span.end == present.end and self.with_service(present) != self.with_service(span):
            raise CommandRefused(
                f"trace {self.id} has a different span {span.id} of kind {span.kind}: a span can't change after it has ended, "
                "give the new one another id"
            )
        return self

    def complete(self, end: int, tags: Tags | None = None, status: str = TraceStatus.COMPLETED) -> "Trace":
        """The trace, ended without an error at `end`. CommandRefused when it has already ended, `end` is before its start, or
        `status` is not one of a completed trace.
        """
        self._refuse_to_end("complete", end)
        if status in (TraceStatus.STARTED, TraceStatus.FAILED, ""):
            raise CommandRefused(f"trace {self.id} can't be completed as {status!r}: fail it, or use another status")
        return replace(self, end=end, status=_known(status), closing_tags=tags or {})

    def fail(self, error: str, end: int, tags: Tags | None = None) -> "Trace":
        """The trace, ended with an error at `end`. CommandRefused when it has already ended, or `end` is before its start."""
        self._refuse_to_end("fail", end)
        return replace(self, end=end, status=TraceStatus.FAILED, error=error, closing_tags=tags or {})

    @property
    def is_open(self) -> bool:
        return self.end is None

    @property
    def all_tags(self) -> Tags:
        """The tags of its start, overridden by those of its end."""
        return {**self.tags, **self.closing_tags}

    @property
    def duration(self) -> timedelta | None:
        """From start to end; None while it is open."""
        return None if self.end is None else as_timedelta(self.end - self.start)

    @property
    def started_at(self) -> datetime:
        return as_datetime(self.start)

    @property
    def ended_at(self) -> datetime | None:
        return None if self.end is None else as_datetime(self.end)

    def key_of(self, span: Span) -> SpanKey:
        """What distinguishes spans of this trace. Zipkin's client and server share a span id, but are two spans."""
        return (span.id, span.kind, self.service_of(span), span.start)

    def with_service(self, span: Span) -> Span:
        """The span with its service filled in."""
        return replace(span, service_id=self.service_of(span))

    def service_of(self, span: Span) -> ServiceId:
        """The span's service, by default the trace's."""
        return self.service_id if span.service_id is None else span.service_id

    def _refuse_to_end(self, verb: str, end: int) -> None:
        if self.end is not None:
            raise CommandRefused(
                f"trace {self.id} already ended as {self.status} at {self.end}: it can't {verb} again, and only takes late spans"
            )
        if end < self.start:
            raise CommandRefused(
                f"trace {self.id} can't {verb} {self.start - end} µs before it starts: its end must not be before {self.start}"
            )


def _known(status: str) -> TraceStatus | str:
    return TraceStatus(status) if status in list(TraceStatus) else status
