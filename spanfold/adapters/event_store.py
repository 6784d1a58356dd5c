"""The event store on Kafka and Postgres: an append is a record, and its answer is the verdict that the journal gives it.

An append is produced once, acknowledged by all in-sync replicas, and waited for until the journal has passed its offset; then its
verdict is read. No version is read before producing: it could be outdated when the record is judged.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from spanfold.application.domain.ids import Id
from spanfold.application.event_store import (
    ANY,
    Append,
    Appended,
    Consistency,
    ExpectedVersion,
    HeldUp,
    History,
    OutcomeUnknown,
    RecordedEvent,
    Rejected,
    Snapshot,
    checked,
)
from spanfold.application.messages import NotYetReflected
from spanfold.kafka.log_ends import BrokerPartition, LogEnds
from spanfold.language.errors import LogUnavailable, PoisonRecord, StoreUnavailable
from spanfold.language.events import DomainEvent
from spanfold.language.partitioning import partitions_of
from spanfold.language.positions import Position
from spanfold.language.settings import Settings
from spanfold.language.topics import Topic
from spanfold.postgres.coalescer import Coalescer
from spanfold.postgres.pool import Postgres
from spanfold.producers.appender import Appender
from spanfold.projections.history import snapshots
from spanfold.projections.history.progress import Progress
from spanfold.projections.history.reader import Answer, HistoryReader, JournalRecord, JudgedAppend, JudgedHistory
from spanfold.schemas.batches import pack
from spanfold.schemas.codec import Codec
from spanfold.schemas.decoding import events_of

TIMEOUT_S: Final = 30.0
SENDING_SHARE: Final = 0.6
"""The share of the time-out in which the record may be sent: once OutcomeUnknown is raised, nothing is sent any more."""


class KafkaEventStore:
    """An EventStore; bootstrap.event_store() makes one. Share it between the tasks of an event loop: one query reads the
    journal's position for all of them, and verdicts are read in batches.

    `timeout_s` bounds every call; an append without a verdict by then raises OutcomeUnknown. A worker must be running: without
    one no record is judged.
    """

    def __init__(self, settings: Settings, postgres: Postgres, appender: Appender, timeout_s: float) -> None:
        self.postgres, self.progress = postgres, Progress(postgres)
        self._prefix, self._timeout_s = settings.topic_prefix, timeout_s
        self._appender, self._codec = appender, Codec()
        self._reader = HistoryReader(postgres)
        self._ends = LogEnds(settings)
        self._answers: dict[str, Coalescer[JudgedAppend, Answer]] = {}
        self._coalesced_ends = {
            committed: Coalescer(partial(self._ends_of, committed=committed)) for committed in (True, False)
        }

    async def append_event(self, event: DomainEvent, expected_version: ExpectedVersion = ANY) -> Appended:
        return await self.append_events([event], expected_version)

    async def append_events(
        self, events: Sequence[DomainEvent], expected_version: ExpectedVersion = ANY, *, batch_id: bytes = b""
    ) -> Appended:
        append = checked(events, expected_version, batch_id)
        answers = await asyncio.gather(
            *(self._append(append, self._record(record)) for record in append.records), return_exceptions=True
        )
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        appended = [answer for answer in answers if isinstance(answer, Appended)]
        return max(appended, key=lambda answer: answer.version)

    async def outcome_of(self, topic: Topic, aggregate_id: str, event_id: bytes) -> Appended | None:
        deadline = self._deadline()
        try:
            at = await self._partition_of(topic, aggregate_id, deadline)
            ask = partial(self._reader.outcome, topic, at, aggregate_id, event_id)
            answer = await ask(_left(deadline))
            if answer is None:
                # records behind an open transaction are in the log too
                await self._judged_to_the_end(topic, at, deadline, committed=False)
                answer = await ask(_left(deadline))
        except (LogUnavailable, StoreUnavailable, NotYetReflected) as error:
            raise OutcomeUnknown(topic, aggregate_id, event_id, self._timeout_s) from error
        if isinstance(answer, Rejected):
            raise answer
        return answer

    async def get_events(
        self,
        topic: Topic,
        aggregate_id: str,
        from_version: int = 0,
        *,
        consistency: Consistency = Consistency.EVENTUAL,
    ) -> History:
        judged = await self.judged(topic, aggregate_id, from_version, consistency)
        events: list[RecordedEvent] = []
        for record in judged.records:
            if record.parked is not None:
                raise HeldUp(aggregate_id, record.position, record.version, record.parked)
            events += self.events_of(record)
        at = await self._partition_of(topic, aggregate_id, self._deadline())
        reflects = Position(topic.name, at, judged.next_offset - 1) if judged.next_offset else None
        return History(events, judged.version, reflects)

    async def judged(
        self, topic: Topic, aggregate_id: str, from_version: int, consistency: Consistency
    ) -> JudgedHistory:
        """The aggregate's records as the journal has them, parked ones too. NotYetReflected when the journal does not reach the
        log's end in time.
        """
        deadline = self._deadline()
        at = await self._partition_of(topic, aggregate_id, deadline)
        if consistency is Consistency.LINEARIZABLE:
            await self._judged_to_the_end(topic, at, deadline, committed=True)
        return await self._reader.read(topic, at, aggregate_id, from_version, _left(deadline))

    def events_of(self, record: JournalRecord) -> list[RecordedEvent]:
        """The record's events; none if it was discarded or settles another record. HeldUp when this version can't read it."""
        if record.discarded:
            return []
        try:
            events = events_of(self._codec, record.payload)
        except PoisonRecord as poison:
            raise HeldUp(record.aggregate_id, record.position, record.version, f"here: {poison}") from poison
        return [RecordedEvent(event, record.version, record.position, record.log_time) for event in events]

    async def save_snapshot(self, topic: Topic, snapshot: Snapshot) -> None:
        await snapshots.save(self.postgres, topic, snapshot, self._timeout_s)

    async def get_snapshot(self, topic: Topic, aggregate_id: str, fold_version: int) -> Snapshot | None:
        return await snapshots.latest(self.postgres, self._codec, topic, aggregate_id, fold_version, self._timeout_s)

    def _record(self, record: tuple[bytes, Sequence[DomainEvent]]) -> DomainEvent:
        event_id, events = record
        return events[0] if len(events) == 1 else pack(events, self._codec, event_id)

    async def _append(self, append: Append, event: DomainEvent) -> Appended:
        deadline = self._deadline()
        try:
            delivery = await self._appender.append(event, append.expected_version)
            position = Position(append.topic.name, delivery.partition, delivery.offset)
            await self.progress.passes([position], _left(deadline))
            appended = JudgedAppend(
                position, append.aggregate_id, event.event_id, event.occurred_at, append.expected_version
            )
            async with asyncio.timeout(_left(deadline)):
                answer = await self._coalesced_answers(append.topic).ask(appended)
        except (LogUnavailable, StoreUnavailable, TimeoutError) as error:
            raise OutcomeUnknown(append.topic, append.aggregate_id, event.event_id, self._timeout_s) from error
        if isinstance(answer, Rejected):
            raise answer
        return answer

    def _coalesced_answers(self, topic: Topic) -> Coalescer[JudgedAppend, Answer]:
        if topic.name not in self._answers:
            ask: Callable[[Sequence[JudgedAppend]], object] = partial(
                self._reader.answers, topic, within_s=self._timeout_s
            )
            self._answers[topic.name] = Coalescer(ask)  # type: ignore[arg-type]
        return self._answers[topic.name]

    async def _judged_to_the_end(self, topic: Topic, at: int, deadline: float, *, committed: bool) -> None:
        """Wait until the journal has passed the current end of the partition."""
        try:
            async with asyncio.timeout(_left(deadline)):
                end = await self._coalesced_ends[committed].ask((topic.on_broker(self._prefix), at))
        except TimeoutError as error:
            raise LogUnavailable(f"Kafka did not report the end of {topic.name}/{at} in time") from error
        if end:
            last = Position(topic.name, at, end - 1)
            try:
                await self.progress.passes([last], _left(deadline))
            except TimeoutError as error:
                raise NotYetReflected((last,), self._timeout_s) from error

    async def _ends_of(self, partitions: Sequence[BrokerPartition], *, committed: bool) -> list[int]:
        ends = await self._ends.of(set(partitions), committed=committed, within_s=self._timeout_s)
        return [ends[partition] for partition in partitions]

    async def _partition_of(self, topic: Topic, aggregate_id: str, deadline: float) -> int:
        partitions = await self._reader.partitions(topic, _left(deadline))
        return int(partitions_of([Id(aggregate_id).encode()], partitions)[0])

    def _deadline(self) -> float:
        return time.monotonic() + self._timeout_s


def _left(deadline: float) -> float:
    return max(deadline - time.monotonic(), 0.001)
