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
SpanKey = tuple[str, str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """A trace as it stands. Each move returns the next one; the trace itself never changes.

    `start` and `end` are µs since 1970 UTC; `end` is None while the trace is open, `error` is what failed it. `tags` are those
    known at its start, `closing_tags` those known at its end.
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
        """With this span; the very same one added again changes nothing. Also a closed trace takes spans, they may be
        late. CommandRefused when the trace holds the span with other content.
        """
        held = {self.key_of(each): each for each in self.spans}.get(self.key_of(span))
        if held is None:
            return replace(self, spans=(*self.spans, span))
        if self.as_held(held) != self.as_held(span):
            raise CommandRefused(
                f"trace {self.id} holds another span {span.id} of kind {span.kind}: a span that has ended does not change, "
                "give the new one an id of its own"
            )
        return self

    def complete(self, end: int, tags: Tags | None = None, status: str = TraceStatus.COMPLETED) -> "Trace":
        """Ended as it should, at `end`; `status` may say more than that. CommandRefused when it has ended already, or
        `end` lies before its start.
        """
        self._refuse_to_end("complete", end)
        if status in (TraceStatus.STARTED, TraceStatus.FAILED, ""):
            raise CommandRefused(f"trace {self.id} can't be completed as {status!r}: call fail, or say how it ended")
        return replace(self, end=end, status=_known(status), closing_tags=tags or {})

    def fail(self, error: str, end: int, tags: Tags | None = None) -> "Trace":
        """Ended at `end` with an error. CommandRefused when it has ended already, or `end` lies before its start."""
        self._refuse_to_end("fail", end)
        return replace(self, end=end, status=TraceStatus.FAILED, error=error, closing_tags=tags or {})

    @property
    def is_open(self) -> bool:
        return self.end is None

    @property
    def all_tags(self) -> Tags:
        """Those of its start, overlaid by those of its end."""
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
        """What tells spans of this trace apart. Zipkin's client and server share a span's id, and are two spans."""
        return (span.id, span.kind, self.service_of(span))

    def as_held(self, span: Span) -> Span:
        """The span with the trace's service where it names none."""
        return replace(span, service_id=self.service_of(span))

    def service_of(self, span: Span) -> ServiceId:
        """The service that the span names, else the trace's."""
        return self.service_id if span.service_id is None else span.service_id

    def _refuse_to_end(self, move: str, end: int) -> None:
        if self.end is not None:
            raise CommandRefused(
                f"trace {self.id} is {self.status} since {self.end}: it can't {move} again; "
                "late spans are all that it still takes"
            )
        if end < self.start:
            raise CommandRefused(
                f"trace {self.id} can't {move} {self.start - end} µs before it starts: its end must not lie before {self.start}"
            )


def _known(status: str) -> TraceStatus | str:
    return TraceStatus(status) if status in list(TraceStatus) else status
