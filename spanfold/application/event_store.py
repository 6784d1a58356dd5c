"""The event store as its users see it: appends that the log arbitrates, and the events of an aggregate. docs/adr/0007 and 0010
explain what an append means.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from typing import Any, Final, Protocol

from spanfold.application.domain.ids import Id
from spanfold.language.errors import InvalidInput, LogUnavailable, SpanfoldError
from spanfold.language.events import DomainEvent
from spanfold.language.ids import event_id, id_text
from spanfold.language.positions import Position
from spanfold.language.topics import BATCH, NOT_FOLDED, Topic, TopicKind

ANY: Final = None
"""Append at any version."""

NO_STREAM: Final = 0
"""Append only if the aggregate has no records yet."""

ExpectedVersion = int | None


class Consistency(StrEnum):
    """What a read must reflect."""

    EVENTUAL = "eventual"
    """All records that have been judged so far."""
    LINEARIZABLE = "linearizable"
    """Also every append that was answered before the read began."""


@dataclass(frozen=True, slots=True)
class Appended:
    """The log accepted the append, as this version of the aggregate and at this position. `repeated`: it had already accepted the
    same event id before.
    """

    version: int
    position: Position
    repeated: bool = False


class Rejected(SpanfoldError):
    """The log rejected the append; this is final. `verdict` is conflict, duplicate, expired, future, erased, misrouted or
    malformed.
    """

    exit_code = 2
    http_status = HTTPStatus.UNPROCESSABLE_ENTITY

    def __init__(self, verdict: str, detail: str) -> None:
        super().__init__(f"{verdict}: {detail}")
        self.verdict = verdict


class Conflict(Rejected):
    """The aggregate was not at the expected version; `actual` is its version now. Load it, decide again, and append under a new
    event id: the verdict on this one is final. `expected` is None if only the event id is known.
    """

    http_status = HTTPStatus.CONFLICT

    def __init__(self, aggregate_id: str, expected: int | None, actual: int) -> None:
        if expected == actual or expected is None:
            detail = f"its event id was rejected before, which is final; {aggregate_id} is at version {actual}"
        else:
            detail = f"it expects version {expected}, {aggregate_id} is at version {actual}"
        super().__init__("conflict", f"{detail}; load, decide, and append with a new event id")
        self.expected = expected
        self.actual = actual


class OutcomeUnknown(LogUnavailable):
    """No answer in time: the append may or may not be in the log. Call `outcome_of` with this event id, or append the same events
    again: they are accepted once.
    """

    def __init__(self, topic: Topic, aggregate_id: str, event_id: bytes, waited_s: float) -> None:
        super().__init__(
            f"no verdict on event {id_text(event_id)} of {aggregate_id} within {waited_s:g} s: it may or may not "
            "have been accepted; ask for the outcome of this event id, or append the same events again"
        )
        self.topic = topic
        self.aggregate_id = aggregate_id
        self.event_id = event_id


class Compacted(SpanfoldError):
    """Some of the requested events are no longer kept. Start from a snapshot of version `first_kept - 1` or later."""

    http_status = HTTPStatus.GONE

    def __init__(self, aggregate_id: str, from_version: int, first_kept: int) -> None:
        super().__init__(
            f"of the events of {aggregate_id} after version {from_version}, only those from version {first_kept} on are "
            "still kept: start from a snapshot"
        )
        self.first_kept = first_kept


class OutcomeForgotten(SpanfoldError):
    """The log may have had this event, but the journal of its day was deleted, so its outcome is unknown. If it is appended again
    it is rejected as expired, so it is accepted at most once.
    """

    http_status = HTTPStatus.GONE

    def __init__(self, aggregate_id: str, event_id: bytes) -> None:
        super().__init__(
            f"the outcome of event {id_text(event_id)} of {aggregate_id} is no longer known: the journal of its day was deleted. "
            "The event will not be accepted again"
        )


class HeldUp(SpanfoldError):
    """An accepted record of the aggregate is parked, so the events after it can't be returned without a gap. Settle it."""

    exit_code = 3

    def __init__(self, aggregate_id: str, position: Position, version: int, reason: str) -> None:
        super().__init__(
            f"{aggregate_id} can't be read past version {version - 1}: its record {position} is parked ({reason}); "
            f"fix the cause, then `spanfold parked retry {position}`, or `spanfold parked discard {position}` to skip it"
        )
        self.position = position
        self.version = version


@dataclass(frozen=True, slots=True)
class RecordedEvent:
    """An event in the log. Events of one batch share version, position and log time. `log_time` is when the broker appended the
    record, µs since 1970 UTC.
    """

    event: DomainEvent
    version: int
    position: Position
    log_time: int


@dataclass(frozen=True, slots=True)
class History:
    """Events of one aggregate, ordered by version. `version` is the aggregate's version, even if there are no events. `reflects`
    is the last position that had been judged, None if the log is empty.
    """

    events: Sequence[RecordedEvent]
    version: int
    reflects: Position | None

    def __iter__(self) -> Iterator[RecordedEvent]:
        return iter(self.events)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An aggregate's plain state (see Aggregate.as_plain) after the record with this version, made by this fold version."""

    aggregate_id: str
    version: int
    fold_version: int
    state: Mapping[str, Any]


class EventStore(Protocol):
    """Appends and reads events.

    On a telemetry topic an append has no expected version, each event is a record, and its version is its offset + 1. On a
    conditional topic the events of an append are one record with one verdict, and versions count records: 1, 2, 3.
    """

    async def append_event(self, event: DomainEvent, expected_version: ExpectedVersion = ANY) -> Appended:
        """append_events with one event."""

    async def append_events(
        self, events: Sequence[DomainEvent], expected_version: ExpectedVersion = ANY, *, batch_id: bytes = b""
    ) -> Appended:
        """Append events of one aggregate and wait for the verdict; of several records, for that of the last one.

        If the log has had an event id before, the answer is its first verdict. `batch_id` is the event id of a record with
        several events, by default derived from theirs. Raises Conflict or another Rejected, OutcomeUnknown when there is no
        answer in time, InvalidInput when the events can't be appended.
        """

    async def outcome_of(self, topic: Topic, aggregate_id: str, event_id: bytes) -> Appended | None:
        """The outcome of an append with this event id: Appended, or None if the log has no such record yet. Raises Conflict or
        another Rejected if it was rejected, OutcomeUnknown when there is no answer in time, OutcomeForgotten when the journal
        of the event's day was deleted.
        """

    async def get_events(
        self,
        topic: Topic,
        aggregate_id: str,
        from_version: int = 0,
        *,
        consistency: Consistency = Consistency.EVENTUAL,
    ) -> History:
        """The accepted events after `from_version`, without those of discarded records. Raises Compacted when some of them are no
        longer kept, HeldUp when one of their records is parked.
        """

    async def save_snapshot(self, topic: Topic, snapshot: Snapshot) -> None:
        """Save it, unless there is one of the same fold version with the same or a later version, or the aggregate was erased."""

    async def get_snapshot(self, topic: Topic, aggregate_id: str, fold_version: int) -> Snapshot | None:
        """The latest snapshot made by the fold with this version; None if there is none."""


@dataclass(frozen=True, slots=True)
class Append:
    """A valid append: `records` are event ids with the events that travel under them."""

    topic: Topic
    aggregate_id: str
    records: Sequence[tuple[bytes, Sequence[DomainEvent]]]
    expected_version: ExpectedVersion


def checked(events: Sequence[DomainEvent], expected_version: ExpectedVersion, batch_id: bytes = b"") -> Append:
    """The append, after the checks that every adapter makes. InvalidInput says what can't be appended, and why."""
    homes = {(event.topic.name, event.aggregate_id) for event in events}
    if len(homes) != 1:
        raise InvalidInput(f"an append takes events of one aggregate, got events of {sorted(homes) or 'none'}")
    topic, aggregate_id = events[0].topic, Id(events[0].aggregate_id)
    for event in events:
        if event.event_type in (BATCH, *NOT_FOLDED):
            raise InvalidInput(f"{event.event_type} can't be appended: append the events themselves")
    if expected_version is not None and expected_version < 0:
        raise InvalidInput(f"expected_version: expected ANY, NO_STREAM or a version from 1, got {expected_version}")
    if topic.kind is TopicKind.TELEMETRY:
        if expected_version is not ANY:
            raise InvalidInput(f"{topic.name} is a telemetry topic: append with expected_version=ANY")
        return Append(topic, aggregate_id, [(event.event_id, [event]) for event in events], ANY)
    record_id = events[0].event_id if len(events) == 1 else batch_id or batch_id_of(events)
    return Append(topic, aggregate_id, [(record_id, events)], expected_version)


def batch_id_of(events: Sequence[DomainEvent]) -> bytes:
    """The event id of an EventBatch of these events: the one that EventBatch derives for itself."""
    ids = [event.event_id.hex() for event in events]
    return event_id(max(event.occurred_at for event in events), BATCH, events[0].aggregate_id, *ids)
