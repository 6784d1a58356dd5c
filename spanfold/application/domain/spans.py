"""A span: an operation within a trace that has ended."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from spanfold.application.domain.ids import ServiceId, SpanId
from spanfold.language.errors import CommandRefused
from spanfold.language.events import TagValue
from spanfold.language.times import as_datetime, as_timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A span. `start` and `end` are µs since 1970 UTC. Without a `service_id` it belongs to the trace's service. `kind` and
    `status` are OpenTelemetry's SpanKind and StatusCode in lower case. CommandRefused when it ends before it starts, or is its
    own parent.
    """

    id: SpanId
    operation_name: str
    start: int
    end: int
    parent_id: SpanId | None = None
    service_id: ServiceId | None = None
    kind: str = "internal"
    status: str = "unset"
    status_message: str | None = None
    tags: Mapping[str, TagValue] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.end < self.start:
            raise CommandRefused(
                f"span {self.id} ends {self.start - self.end} µs before it starts: its end must not be before {self.start}"
            )
        if self.parent_id == self.id:
            raise CommandRefused(f"span {self.id} is its own parent: a root span has no parent_id")

    @property
    def started_at(self) -> datetime:
        return as_datetime(self.start)

    @property
    def ended_at(self) -> datetime:
        return as_datetime(self.end)

    @property
    def duration(self) -> timedelta:
        return as_timedelta(self.end - self.start)
