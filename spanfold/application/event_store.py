"""The event store as its users see it: appends that the log arbitrates, and the events of an aggregate. What an append means is
in docs/adr/0007 and 0010.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Protocol

from spanfold.application.domain.ids import Id
from spanfold.language.errors import InvalidInput, LogUnavailable, SpanfoldError
from spanfold.language.events import DomainEvent
from spanfold.language.ids import event_id, id_text
from spanfold.language.positions import Position
from spanfold.language.topics import BATCH, NOT_FOLDED, Topic, TopicKind

ANY: Final = None
"""Append whatever version there is."""

NO_STREAM: Final = 0
"""Append only if the aggregate has no record yet."""

ExpectedVersion = int | None


class Consistency(StrEnum):
    """What a read has to reflect."""

    EVENTUAL = "eventual"
    """What has been judged so far."""
    LINEARIZABLE = "linearizable"
    """Every append that had its answer before the read began."""


@dataclass(frozen=True, slots=True)
class Appended:
    """The log has accepted the append: as this version of its aggregate, at this position. `repeated`: it had done so
    before, for the same event id.
    """

    version: int
    position: Position
    repeated: bool = False


class Rejected(SpanfoldError):
    """The log has rejected the append, for ever. `verdict` is conflict, duplicate, expired, future, erased, misrouted or
    malformed.
    """

    exit_code = 2

    def __init__(self, verdict: str, detail: str) -> None:
        super().__init__(f"{verdict}: {detail}")
        self.verdict = verdict


class Conflict(Rejected):
    """The aggregate was not at the expected version. `actual` is where it is now. Load it again, decide again, and append
    under a new event id: the verdict on this one is final. `expected` is None where only the event id is known.
    """

    def __init__(self, aggregate_id: str, expected: int | None, actual: int) -> None:
        if expected == actual or expected is None:
            detail = f"its event id was rejected before, which is final; {aggregate_id} is at version {actual}"
        else:
            detail = f"it expects version {expected}, {aggregate_id} is at {actual}"
        super().__init__("conflict", f"{detail}; load, decide, and append with a new event id")
        self.expected = expected
        self.actual = actual


class OutcomeUnknown(LogUnavailable):
    """No answer in time: the append may or may not be in the log. Ask `outcome_of` with this event id, or append the very
    same events again: they are accepted once.
    """

    def __init__(self, topic: Topic, aggregate_id: str, event_id: bytes, waited_s: float) -> None:
        super().__init__(
            f"no verdict on event {id_text(event_id)} of {aggregate_id} within {waited_s:g} s: it is unknown, not failed; "
            "ask for the outcome of this event id, or append the same again"
        )
        self.topic = topic
        self.aggregate_id = aggregate_id
        self.event_id = event_id


class Compacted(SpanfoldError):
    """The events that were asked for are no longer kept. Start from a snapshot of version `first_kept - 1` or later."""

    def __init__(self, aggregate_id: str, from_version: int, first_kept: int) -> None:
        super().__init__(
            f"the events of {aggregate_id} after version {from_version} are no longer all kept, "
            f"only those from version {first_kept}: start from a snapshot"
        )
        self.first_kept = first_kept


class OutcomeForgotten(SpanfoldError):
    """The log may have had this event once, of a day that is let go of: what became of it is not known any more. Appended
    again it is expired, so it is accepted once at most.
    """

    def __init__(self, aggregate_id: str, event_id: bytes) -> None:
        super().__init__(
            f"what became of event {id_text(event_id)} of {aggregate_id} is not known any more: the journal's records of its "
            "day are let go of. It will not be accepted again"
        )


class HeldUp(SpanfoldError):
    """An accepted record of the aggregate can't be folded, so what comes after it can't be told without a hole. Settle it."""

    exit_code = 3

    def __init__(self, aggregate_id: str, position: Position, version: int, reason: str) -> None:
        super().__init__(
            f"{aggregate_id} can't be read past version {version - 1}: its record {position} is parked ({reason}); "
            f"upgrade or repair, then `spanfold parked retry {position}`, or `discard` to do without it"
        )
        self.position = position
        self.version = version


@dataclass(frozen=True, slots=True)
class RecordedEvent:
    """An event as the log has it. Events of one batch share version, position and log time. `log_time` is when the log had
    it, µs since 1970 UTC.
    """

    event: DomainEvent
    version: int
    position: Position
    log_time: int


@dataclass(frozen=True, slots=True)
class History:
    """Events of one aggregate by version. `version` is the aggregate's, also where no event is returned; `reflects` is the
    position up to which the log had been judged, None of a log that is empty.
    """

    events: Sequence[RecordedEvent]
    version: int
    reflects: Position | None

    def __iter__(self) -> Iterator[RecordedEvent]:
        return iter(self.events)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An aggregate's state after the record of this version, plain (see Aggregate.as_plain), by a fold of this version."""

    aggregate_id: str
    version: int
    fold_version: int
    state: Mapping[str, Any]


class EventStore(Protocol):
    """Appends and reads. On a telemetry topic an append takes no expected version, several events are several records,
    and a version is the record's offset + 1; on a conditional one several events are one record, judged whole, and
    versions count records: 1, 2, 3.
    """

    async def append_event(self, event: DomainEvent, expected_version: ExpectedVersion = ANY) -> Appended:
        """append_events of one."""

    async def append_events(
        self, events: Sequence[DomainEvent], expected_version: ExpectedVersion = ANY, *, batch_id: bytes = b""
    ) -> Appended:
        """Append events of one aggregate and wait for the verdict; of several records, the last one's.

        An event id that the log has had before gets its first verdict again. `batch_id` is the event id of several events
        as one record; it is derived from theirs unless it is given. Raises Conflict or another Rejected, OutcomeUnknown
        when there is no answer in time, InvalidInput when the events can't be appended.
        """

    async def outcome_of(self, topic: Topic, aggregate_id: str, event_id: bytes) -> Appended | None:
        """The verdict on this event id: Appended; None when the log had no such record when it was asked. Raises Conflict or
        another Rejected for a rejection, OutcomeUnknown when the log can't be asked in time, OutcomeForgotten when the event may
        be of a day that is let go of.
        """

    async def get_events(
        self,
        topic: Topic,
        aggregate_id: str,
        from_version: int = 0,
        *,
        consistency: Consistency = Consistency.EVENTUAL,
    ) -> History:
        """The accepted events after `from_version`; records that were discarded have none. Raises Compacted when they are no
        longer all kept, HeldUp when a record of them is parked.
        """

    async def save_snapshot(self, topic: Topic, snapshot: Snapshot) -> None:
        """Keep it, unless there is one of the same fold and of the same or a later version, or the aggregate was erased."""

    async def get_snapshot(self, topic: Topic, aggregate_id: str, fold_version: int) -> Snapshot | None:
        """The latest one that a fold of this version has made."""


@dataclass(frozen=True, slots=True)
class Append:
    """An append that has been checked: `records` are event ids with the events that travel under each."""

    topic: Topic
    aggregate_id: str
    records: Sequence[tuple[bytes, Sequence[DomainEvent]]]
    expected_version: ExpectedVersion


def checked(events: Sequence[DomainEvent], expected_version: ExpectedVersion, batch_id: bytes = b"") -> Append:
    """What every adapter checks first. InvalidInput says what can't be appended, and why."""
    homes = {(event.topic.name, event.aggregate_id) for event in events}
    if len(homes) != 1:
        raise InvalidInput(f"an append takes the events of one aggregate, got those of {sorted(homes) or 'none'}")
    topic, aggregate_id = events[0].topic, Id(events[0].aggregate_id)
    for event in events:
        if event.event_type in (BATCH, *NOT_FOLDED):
            raise InvalidInput(f"{event.event_type} is not for appending: append the events themselves")
    if expected_version is not None and expected_version < 0:
        raise InvalidInput(f"expected_version: expected ANY, NO_STREAM or a version from 1, got {expected_version}")
    if topic.kind is TopicKind.TELEMETRY:
        if expected_version is not ANY:
            raise InvalidInput(f"{topic.name} holds facts that have happened already: append with expected_version=ANY")
        return Append(topic, aggregate_id, [(event.event_id, [event]) for event in events], ANY)
    record_id = events[0].event_id if len(events) == 1 else batch_id or batch_id_of(events)
    return Append(topic, aggregate_id, [(record_id, events)], expected_version)


def batch_id_of(events: Sequence[DomainEvent]) -> bytes:
    """The event id of an EventBatch of these events: the one that EventBatch derives for itself."""
    ids = [event.event_id.hex() for event in events]
    return event_id(max(event.occurred_at for event in events), BATCH, events[0].aggregate_id, *ids)
