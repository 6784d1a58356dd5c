"""Folds batches into states, beside the projector and behind it: what the journal has judged, and nothing else.

As with the projector, states and checkpoint commit in one transaction that begins with the checkpoint's lock: who commits, how
often, and what a process believes that it owns do not matter. Memory holds a batch and the states that it touches.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from psycopg import Connection, Cursor

from spanfold.application.aggregates import Aggregate
from spanfold.language.errors import Misconfigured, PoisonRecord, SpanfoldError
from spanfold.language.events import DomainEvent
from spanfold.language.positions import NextOffsets
from spanfold.language.snapshot_policy import SnapshotPolicy
from spanfold.language.topics import Partition, Topic, TopicKind
from spanfold.projections.commit.arbiter import arbiter_of
from spanfold.projections.commit.batch import Batch, Gap, Outcome
from spanfold.projections.commit.cut import whole
from spanfold.projections.commit.journal import CORE
from spanfold.projections.commit.merging import advance, no_longer_readable, unfolded_below
from spanfold.projections.commit.topic_suspension import refuse_suspended
from spanfold.projections.states import rows
from spanfold.projections.states.recovery import state_of
from spanfold.projections.states.rows import SNAPSHOTS, FoldedPartition, KeptState, StateRow
from spanfold.schemas.codec import Codec
from spanfold.schemas.decoding import events_of
from spanfold.schemas.snapshots import encode_state


class NotJudgedYet(SpanfoldError):
    """The journal stands at `judged_to`, before the end of the batch: wait."""

    def __init__(self, batch: Batch, judged_to: int) -> None:
        super().__init__(
            f"{batch.topic.name}/{batch.partition}: judged up to {judged_to}, the batch ends at {batch.end}"
        )
        self.judged_to = judged_to


@dataclass(frozen=True, slots=True)
class Recorded:
    """A record that is to be folded: its events, and when the log had it (µs since 1970 UTC)."""

    offset: int
    log_time: int
    events: Sequence[DomainEvent]


@dataclass(frozen=True, slots=True)
class PreparedStates:
    """A batch with every value decoded that can be; `unreadable` by offset."""

    batch: Batch
    recorded: Sequence[Recorded]
    unreadable: Mapping[int, PoisonRecord]


@dataclass(frozen=True, slots=True)
class Folding:
    """How the aggregates of one topic are folded, and when snapshots of them are due."""

    aggregate: type[Aggregate[Any]]
    policy: SnapshotPolicy


class StateStore:
    """Folds topics into the states of their aggregates. One per process and connection; not thread-safe.

    `reached(step)` is called before each named step of a commit: before_merge (what is kept has been read and folded),
    before_commit. Tests stop there.
    """

    def __init__(self, foldings: Iterable[Folding], codec: Codec | None = None) -> None:
        self._foldings = {folding.aggregate.topic.name: folding for folding in foldings}
        self._codec = codec or Codec()
        self.reached: Callable[[str], None] = lambda step: None

    @property
    def checkpoints(self) -> str:
        """The query whose rows `start_offsets` takes."""
        return CHECKPOINTS

    @property
    def topics(self) -> list[Topic]:
        """The topics that it folds."""
        return [folding.aggregate.topic for folding in self._foldings.values()]

    @property
    def fold_versions(self) -> dict[str, int]:
        """The version of the fold of each topic."""
        return {name: folding.aggregate.fold_version for name, folding in self._foldings.items()}

    def register(self, connection: Connection[Any]) -> None:
        """Have checkpoints for every partition of its topics; they begin at the log's start."""
        for topic in self.topics:
            rows.register(connection, topic, self.fold_versions[topic.name])

    def due(self, connection: Connection[Any]) -> list[Partition]:
        """The partitions that have states whose snapshot is due by the clock."""
        parameters = (list(self.fold_versions), list(self.fold_versions.values()))
        return [(topic, partition) for topic, partition in connection.execute(rows.DUE, parameters)]

    def take_due(self, connection: Connection[Any], topic: str, partition: int, *, everything: bool = False) -> int:
        """Take the snapshots that are due by the clock, for a partition to which nothing has come for a while; or of every state
        that is in none. Returns how many. The partition's states are locked meanwhile.
        """
        folded = self.folded_partition(topic, partition)
        with connection.transaction(), connection.cursor() as cursor:
            if rows.lock(cursor, folded) is None:
                return 0
            return rows.take(cursor, folded, None if everything else time.time_ns() // 1000)

    def folded_partition(self, topic: str, partition: int) -> FoldedPartition:
        """The partition as this store's fold of its aggregates sees it."""
        aggregate = self._foldings[topic].aggregate
        return FoldedPartition(aggregate.topic, partition, aggregate.fold_version)

    def start_offsets(self, checkpoints: Iterable[tuple[Any, ...]]) -> NextOffsets:
        """Where to read each (topic, partition) from; `checkpoints` are rows of `self.checkpoints`."""
        return {
            (topic, partition): next_offset
            for topic, partition, _, fold_version, next_offset in checkpoints
            if topic in self._foldings and fold_version == self._foldings[topic].aggregate.fold_version
        }

    def prepare(self, batch: Batch) -> PreparedStates:
        """Decode what can be decoded; the journal says later which of it counts."""
        recorded: list[Recorded] = []
        unreadable: dict[int, PoisonRecord] = {}
        types = self._types(batch.topic)
        for offset, log_time_ms, value in zip(batch.offsets, batch.log_times_ms, batch.values, strict=True):
            try:
                recorded.append(Recorded(offset, log_time_ms * 1000, events_of(self._codec, whole(value), types)))
            except PoisonRecord as poison:
                unreadable[offset] = poison
        return PreparedStates(batch, recorded, unreadable)

    def _types(self, topic: Topic) -> set[str]:
        """The types of events that the topic's aggregate knows; others make no difference to it."""
        return {known.__name__ for known in self._foldings[topic.name].aggregate.events}

    def commit(self, connection: Connection[Any], prepared: PreparedStates) -> list[Outcome]:
        """Fold the batch exactly once, and take the snapshots that are due. Raises Gap or NotJudgedYet when it is not this
        batch's turn, Misconfigured when a record that was folded can't be read here, or psycopg.OperationalError when
        nothing was committed and a retry may help.
        """
        batch = prepared.batch
        folded = self.folded_partition(batch.topic.name, batch.partition)
        with connection.transaction(), connection.cursor() as cursor:
            next_offset = self._turn(cursor, folded, batch)
            if next_offset >= batch.end:
                return [Outcome(fenced=True)]
            recorded = self._accepted(cursor, prepared, next_offset)
            states = self._fold(cursor, folded, recorded, next_offset)
            self.reached("before_merge")
            if states:
                rows.keep(cursor, folded, states)
            advance(cursor, batch, [(SNAPSHOTS, folded.fold_version)])
            if batch.log_times_ms:
                rows.take(cursor, folded, batch.log_times_ms[-1] * 1000)
            self.reached("before_commit")
        return [Outcome(folded=len(recorded))]

    def _turn(self, cursor: Cursor[Any], folded: FoldedPartition, batch: Batch) -> int:
        """Lock the states; returns where they stand."""
        standing = rows.lock(cursor, folded)
        if standing is None:
            raise Misconfigured(
                f"{folded.topic.name}/{folded.partition} has no checkpoint of snapshots: start the worker again"
            )
        next_offset, judged_to = standing
        if next_offset < batch.start:
            raise Gap(batch, next_offset)
        if next_offset < batch.end > judged_to:
            refuse_suspended(cursor, batch.topic.name)
            raise NotJudgedYet(batch, judged_to)
        return next_offset

    def _accepted(self, cursor: Cursor[Any], prepared: PreparedStates, next_offset: int) -> list[Recorded]:
        """The records from `next_offset` on that are folded, and those that are retried there."""
        batch = prepared.batch
        unreadable = {offset: poison for offset, poison in prepared.unreadable.items() if offset >= next_offset}
        unfolded = unfolded_below(cursor, batch, batch.end, unreadable)
        accepted = [
            record for record in prepared.recorded if record.offset >= next_offset and record.offset not in unfolded
        ]
        where = {"topic": batch.topic.name, "partition": batch.partition, "start": next_offset, "end": batch.end}
        for offset, log_time, payload in cursor.execute(RETRIED, where, binary=True).fetchall():
            try:
                accepted.append(Recorded(offset, log_time, events_of(self._codec, payload, self._types(batch.topic))))
            except PoisonRecord as poison:
                raise no_longer_readable(batch, offset, poison) from poison
        return [record for record in accepted if record.events]

    def _fold(
        self, cursor: Cursor[Any], folded: FoldedPartition, recorded: Sequence[Recorded], next_offset: int
    ) -> list[StateRow]:
        folding = self._foldings[folded.topic.name]
        by_aggregate: dict[str, list[Recorded]] = {}
        for record in recorded:
            by_aggregate.setdefault(record.events[0].aggregate_id, []).append(record)
        kept = rows.kept_states(cursor, folded, by_aggregate)
        versions = _versions(cursor, folded, by_aggregate, kept)
        states = []
        for aggregate_id, records in by_aggregate.items():
            before = kept.get(aggregate_id)
            new = [record for record in records if record.offset in versions] if versions is not None else records
            if new:
                state = self._state(cursor, folded, aggregate_id, before, next_offset)
                states.append(self._evolve(folding, aggregate_id, state, before, new, versions))
        return states

    def _state(
        self,
        cursor: Cursor[Any],
        folded: FoldedPartition,
        aggregate_id: str,
        before: KeptState | None,
        next_offset: int,
    ) -> Any:
        aggregate = self._foldings[folded.topic.name].aggregate
        if before is None:
            return aggregate.initial(aggregate_id)
        return state_of(cursor, self._codec, aggregate, folded, before, next_offset)

    def _evolve(
        self,
        folding: Folding,
        aggregate_id: str,
        state: Any,
        before: KeptState | None,
        recorded: Sequence[Recorded],
        versions: Mapping[int, int] | None,
    ) -> StateRow:
        """The state after these records too. Those of a conditional topic have `versions`, and are folded in their order."""
        aggregate = folding.aggregate
        numbered = [(record, record.offset + 1 if versions is None else versions[record.offset]) for record in recorded]
        numbered.sort(key=lambda pair: pair[1])
        events = [(event, version) for record, version in numbered for event in record.events]
        state = aggregate.evolve_all(state, events)
        records = len(recorded) + (before.records if before else 0)
        first = before.first_log_time if before and before.first_log_time is not None else recorded[0].log_time
        due_at = folding.policy.due_at(
            closed=aggregate.is_closed(state),
            records=records,
            first_log_time=first,
            last_event_at=max((event.occurred_at for event, _ in events), default=first),
        )
        version = max(numbered[-1][1], before.version if before else 0)
        return StateRow(aggregate_id, version, records, first, due_at, encode_state(self._codec, aggregate, state))


def _versions(
    cursor: Cursor[Any],
    folded: FoldedPartition,
    recorded: Mapping[str, Sequence[Recorded]],
    kept: Mapping[str, KeptState],
) -> dict[int, int] | None:
    """By offset, the versions of the records that are not in a state yet; None on a telemetry topic."""
    if folded.topic.kind is TopicKind.TELEMETRY:
        return None
    table = arbiter_of(folded.topic).table
    if table is None or not recorded:
        return {}
    after = [kept[aggregate_id].version if aggregate_id in kept else 0 for aggregate_id in recorded]
    offsets = [record.offset for records in recorded.values() for record in records]
    return rows.versions_at(cursor, table.name, list(recorded), after, offsets)


CHECKPOINTS: Final = f"""
SELECT topic, partition, projection, generation, next_offset FROM {CORE}.checkpoints WHERE projection = '{SNAPSHOTS}'
"""

RETRIED: Final = f"""
SELECT kafka_offset, (extract(epoch FROM log_time) * 1000000)::bigint, payload
  FROM {CORE}.parked
 WHERE topic = %(topic)s AND partition = %(partition)s AND settled_as = 'retried'
   AND settled_offset >= %(start)s AND settled_offset < %(end)s
 ORDER BY kafka_offset
"""
