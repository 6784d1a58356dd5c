"""The event store in memory: one partition per topic, with the verdicts that workers would give (docs/adr/0003, 0007)."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from spanfold.application.event_store import (
    ANY,
    Append,
    Appended,
    Conflict,
    Consistency,
    ExpectedVersion,
    History,
    RecordedEvent,
    Rejected,
    Snapshot,
    checked,
)
from spanfold.language.events import DomainEvent
from spanfold.language.positions import Position
from spanfold.language.times import now_us
from spanfold.language.topics import US_PER_DAY, Topic, TopicKind

PARTITION = 0

DuplicateKey = tuple[int, bytes]
"""By which duplicates are recognised: event day (0 on a conditional topic) and event id."""


@dataclass(slots=True)
class _Log:
    """One topic. `end` is its next offset; `events` and `heads` are accepted events and versions by aggregate; `verdicts` are
    the first ones, for duplicates; `answers` is what `outcome_of` returns, by aggregate and event id.
    """

    end: int = 0
    events: dict[str, list[RecordedEvent]] = field(default_factory=lambda: defaultdict(list))
    heads: dict[str, int] = field(default_factory=dict)
    verdicts: dict[DuplicateKey, Appended | Rejected] = field(default_factory=dict)
    answers: dict[tuple[str, bytes], Appended | Rejected] = field(default_factory=dict)
    snapshots: dict[tuple[str, int], Snapshot] = field(default_factory=dict)


class InMemoryEventStore:
    """An EventStore in memory. `clock` gives the log's time, µs since 1970 UTC."""

    def __init__(self, clock: Callable[[], int] = now_us) -> None:
        self._clock = clock
        self._logs: dict[str, _Log] = defaultdict(_Log)

    async def append_event(self, event: DomainEvent, expected_version: ExpectedVersion = ANY) -> Appended:
        return await self.append_events([event], expected_version)

    async def append_events(
        self, events: Sequence[DomainEvent], expected_version: ExpectedVersion = ANY, *, batch_id: bytes = b""
    ) -> Appended:
        append = checked(events, expected_version, batch_id)
        outcomes = [self._append(append, event_id, record_events) for event_id, record_events in append.records]
        for outcome in outcomes:
            if isinstance(outcome, Rejected):
                raise self._up_to_date(append.topic, append.aggregate_id, append.expected_version, outcome)
        return max(
            (outcome for outcome in outcomes if isinstance(outcome, Appended)), key=lambda appended: appended.version
        )

    async def outcome_of(self, topic: Topic, aggregate_id: str, event_id: bytes) -> Appended | None:
        outcome = self._logs[topic.name].answers.get((aggregate_id, event_id))
        if isinstance(outcome, Rejected):
            raise self._up_to_date(topic, aggregate_id, None, outcome)
        return outcome

    async def get_events(
        self,
        topic: Topic,
        aggregate_id: str,
        from_version: int = 0,
        *,
        consistency: Consistency = Consistency.EVENTUAL,
    ) -> History:
        log = self._logs[topic.name]
        events = [recorded for recorded in log.events.get(aggregate_id, ()) if recorded.version > from_version]
        reflects = Position(topic.name, PARTITION, log.end - 1) if log.end else None
        return History(events, log.heads.get(aggregate_id, 0), reflects)

    async def save_snapshot(self, topic: Topic, snapshot: Snapshot) -> None:
        snapshots, key = self._logs[topic.name].snapshots, (snapshot.aggregate_id, snapshot.fold_version)
        kept = snapshots.get(key)
        if kept is None or kept.version < snapshot.version:
            snapshots[key] = snapshot

    async def get_snapshot(self, topic: Topic, aggregate_id: str, fold_version: int) -> Snapshot | None:
        return self._logs[topic.name].snapshots.get((aggregate_id, fold_version))

    def _append(self, append: Append, event_id: bytes, events: Sequence[DomainEvent]) -> Appended | Rejected:
        outcome = self._judge(append, event_id, events)
        answers = self._logs[append.topic.name].answers
        if isinstance(outcome, Appended):
            answers[append.aggregate_id, event_id] = replace(outcome, repeated=False)
        else:
            answers.setdefault((append.aggregate_id, event_id), outcome)
        return outcome

    def _judge(self, append: Append, event_id: bytes, events: Sequence[DomainEvent]) -> Appended | Rejected:
        """The verdict on one record, which takes an offset whatever the verdict is."""
        log, now = self._logs[append.topic.name], self._clock()
        position = Position(append.topic.name, PARTITION, log.end)
        log.end += 1
        key = _key(append.topic, event_id, events[0].occurred_at)
        untimely = _untimely(append.topic, now - events[0].occurred_at)
        if untimely is not None:
            return untimely
        first = log.verdicts.get(key)
        if first is not None:
            return replace(first, repeated=True) if isinstance(first, Appended) else first
        outcome = log.verdicts[key] = _judged(append, log.heads.get(append.aggregate_id, 0), position)
        if isinstance(outcome, Appended):
            log.heads[append.aggregate_id] = outcome.version
            log.events[append.aggregate_id] += [
                RecordedEvent(event, outcome.version, position, now) for event in events
            ]
        return outcome

    def _up_to_date(self, topic: Topic, aggregate_id: str, expected: ExpectedVersion, rejected: Rejected) -> Rejected:
        """The rejection with the aggregate's current version."""
        head = self._logs[topic.name].heads.get(aggregate_id, 0)
        return Conflict(aggregate_id, expected, head) if isinstance(rejected, Conflict) else rejected


def _judged(append: Append, head: int, position: Position) -> Appended | Rejected:
    expected = append.expected_version
    if append.topic.kind is TopicKind.TELEMETRY:
        return Appended(position.offset + 1, position)
    if expected is not ANY and expected != head:
        return Conflict(append.aggregate_id, expected, head)
    return Appended(head + 1, position)


def _untimely(topic: Topic, age_us: int) -> Rejected | None:
    if topic.kind is TopicKind.CONDITIONAL:
        return None
    if age_us > topic.window_days * US_PER_DAY:
        return Rejected("expired", f"older than the topic's window of {topic.window_days} days")
    if age_us < -topic.future_days * US_PER_DAY:
        return Rejected("future", "more than a day ahead of the log's time")
    return None


def _key(topic: Topic, event_id: bytes, occurred_at: int) -> DuplicateKey:
    return (0 if topic.kind is TopicKind.CONDITIONAL else occurred_at // US_PER_DAY, event_id)
