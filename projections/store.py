"""Commits batches: verdicts, journal, rows and the next offset in one Postgres transaction, fenced by the checkpoints.

Law 2 lives here. A batch covers [start, end) of one partition. In its transaction the checkpoints are locked first; what
they have passed is not folded again, and if one of them lies before `start`, something would be skipped: `Gap`. So it does
not matter who commits, how often, or what a process believes that it owns.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import psycopg
from psycopg import Connection, Cursor

from projections.arbiter import Arbiter, arbiter_of
from projections.batch import Batch
from projections.journal import CORE
from projections.projection import Projection, folding
from projections.reading import BEHIND, REFUSED, Fact, read
from projections.refusals import write_parked, write_rejected
from projections.settlements import Settled, held_up, is_settlement, settle
from projections.verdicts import Judged, judge
from schemas.codec import Codec
from spanfold.errors import Misconfigured, PoisonRecord, SpanfoldError
from spanfold.topics import ON_EVERY_TOPIC, Topic, TopicKind

JOURNAL: Final = "journal"

_REFUSED_CLASSES: Final = ("22", "23", "54")
"""SQLSTATE classes that one record's values can cause: data exception, integrity violation, program limit exceeded."""


class Gap(SpanfoldError):
    """A checkpoint lies before the batch: go back and read from `next_offset`."""

    def __init__(self, batch: Batch, next_offset: int) -> None:
        super().__init__(
            f"{batch.topic.name}[{batch.partition}]: the batch starts at {batch.start}, the checkpoint is at {next_offset}"
        )
        self.next_offset = next_offset


@dataclass(frozen=True, slots=True)
class Prepared:
    """A batch read and folded as if every record that its headers allow were accepted. Needs no database.

    `settlements` are facts about parked records; they are not for projections. `refused`: Postgres would not have what
    the batch's only record makes foldable.
    """

    judged: Judged
    parked: dict[int, PoisonRecord]
    facts: list[Fact]
    partials: Mapping[str, Any]
    settlements: list[Fact] = field(default_factory=list)
    refused: PoisonRecord | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a batch. `fenced`: all of it had been committed already, by this worker or another."""

    folded: int = 0
    rejected: Mapping[str, int] = field(default_factory=dict)
    parked: Mapping[str, int] = field(default_factory=dict)
    fenced: bool = False


@dataclass(frozen=True, slots=True)
class Generation:
    """A generation that this process folds, and where it stands in the batch's partition."""

    projection: Projection
    number: int
    schema: str
    next_offset: int


class Store:
    """Folds batches into the database behind `connection`. One per process and connection; not thread-safe.

    `reached(step)` is called before each named step of a commit: before_merge, before_commit. Tests stop there.
    """

    def __init__(self, projections: Mapping[str, Projection], codec: Codec | None = None) -> None:
        self._projections = projections
        self._codec = codec or Codec()
        self._arbiters: dict[str, Arbiter] = {}
        self.reached: Callable[[str], None] = lambda step: None

    def prepare(self, batch: Batch, refused: PoisonRecord | None = None) -> Prepared:
        """Judge, decode and fold the batch: pure, for the time while Postgres commits the one before. `refused`: why
        Postgres did not take the batch's only record.
        """
        judged = judge(batch)
        parked: dict[int, PoisonRecord] = {}
        facts = read(judged, self._codec, parked)
        settlements: list[Fact] = []
        if not set(ON_EVERY_TOPIC).isdisjoint(judged.event_types):
            settlements = [fact for fact in facts if is_settlement(fact)]
            facts = [fact for fact in facts if not is_settlement(fact)]
        if refused is not None and facts:
            # a fact about a parked record is not parked itself: it leaves that one parked
            parked, facts = {0: refused}, []
        return Prepared(judged, parked, facts, self._fold(batch.topic, facts), settlements, refused)

    def _fold(self, topic: Topic, facts: Sequence[Fact]) -> dict[str, Any]:
        return {each.name: each.fold(facts) for each in folding(topic, self._projections)}

    def commit(self, connection: Connection[Any], prepared: Prepared) -> list[Outcome]:
        """Commit the batch exactly once. If Postgres refuses a record's values, the batch is halved until that record
        stands alone and is parked. Raises Gap, or psycopg.OperationalError when nothing was committed and a retry may
        help.
        """
        batch = prepared.judged.batch
        if (border := _border(prepared)) is not None:
            return [out for part in batch.split(border) for out in self.commit(connection, self.prepare(part))]
        try:
            return [self._commit_whole(connection, prepared)]
        except psycopg.Error as error:
            if (error.sqlstate or "")[:2] not in _REFUSED_CLASSES or not batch:
                raise
            if len(batch) == 1:
                refused = PoisonRecord(REFUSED, f"{error.sqlstate}: {str(error).splitlines()[0]}")
                return [self._commit_whole(connection, self.prepare(batch, refused))]
        halves = batch.split(len(batch) // 2)
        return [out for half in halves for out in self.commit(connection, self.prepare(half))]

    def _commit_whole(self, connection: Connection[Any], prepared: Prepared) -> Outcome:
        batch = prepared.judged.batch
        arbiter = self._arbiters.get(batch.topic.name) or self._add_arbiter(batch.topic)
        arbiter.prepare(connection, batch.log_times_ms)
        with connection.transaction(), connection.cursor() as cursor:
            journal_at, generations = self._lock(cursor, batch)
            lowest = min([journal_at, *(each.next_offset for each in generations)])
            if lowest < batch.start:
                raise Gap(batch, lowest)
            if lowest >= batch.end:
                return Outcome(fenced=True)
            outcome, excluded = self._decide(cursor, prepared, arbiter, journal_at)
            settled = self._settle(cursor, prepared, excluded, journal_at)
            self.reached("before_merge")
            for generation in generations:
                self._merge(cursor, prepared, generation, excluded, settled)
            _advance(cursor, batch, generations)
            self.reached("before_commit")
        return outcome

    def _add_arbiter(self, topic: Topic) -> Arbiter:
        self._arbiters[topic.name] = arbiter_of(topic)
        return self._arbiters[topic.name]

    def _lock(self, cursor: Cursor[Any], batch: Batch) -> tuple[int, list[Generation]]:
        """Lock the partition's checkpoints, then see which generations are live: rows go there, wherever that is now."""
        where = (batch.topic.name, batch.partition)
        while True:
            cursor.execute(LOCK_CHECKPOINTS, where)
            positions = {(name, number): offset for name, number, offset in cursor}
            cursor.execute(LIVE_GENERATIONS)
            live = [row for row in cursor if self._carries(batch.topic.name, row[0], row[3])]
            if (JOURNAL, 0) not in positions:
                raise Misconfigured(
                    f"{where[0]}[{where[1]}] has no checkpoint: register its topic with `spanfold migrate`"
                )
            # a generation that went live while we waited for the locks is not locked yet
            if all((name, number) in positions for name, number, _, _ in live):
                break
        generations = [
            Generation(self._projections[name], number, schema, positions[name, number])
            for name, number, schema, _ in live
        ]
        return positions[JOURNAL, 0], generations

    def _carries(self, topic: str, name: str, fold_version: int) -> bool:
        projection = self._projections.get(name)
        if projection is None or projection.fold_version != fold_version:
            return False
        return any(each.name == topic for each in projection.topics)

    def start_offsets(self, checkpoints: Iterable[tuple[Any, ...]]) -> dict[tuple[str, int], int]:
        """Where to read each (topic, partition) from: the least checkpoint of the journal and of the live generations
        that this process folds. `checkpoints` are rows of CHECKPOINTS.
        """
        at: dict[tuple[str, int], int] = {}
        for topic, partition, name, fold_version, next_offset in checkpoints:
            if name == JOURNAL or self._carries(topic, name, fold_version):
                at[topic, partition] = min(next_offset, at.get((topic, partition), next_offset))
        return at

    def _decide(
        self, cursor: Cursor[Any], prepared: Prepared, arbiter: Arbiter, journal_at: int
    ) -> tuple[Outcome, set[int]]:
        """Judge what lies at or above the journal's checkpoint, look up what lies below. Returns offsets not to fold."""
        judged, offsets = prepared.judged, prepared.judged.batch.offsets
        fresh = [index for index, offset in enumerate(offsets) if offset >= journal_at]
        candidates = [index for index in fresh if index not in judged.rejections] if judged.rejections else fresh
        decided = arbiter.decide(cursor, judged, candidates) if candidates else {}
        rejections = {index: judged.rejections[index] for index in fresh if index in judged.rejections} | decided
        parked = {i: why for i, why in prepared.parked.items() if offsets[i] >= journal_at and i not in decided}
        if judged.batch.topic.kind is TopicKind.CONDITIONAL:
            parked |= _behind(cursor, judged, [i for i in candidates if i not in decided], parked)
        if rejections:
            write_rejected(cursor, judged, rejections)
        if parked:
            write_parked(cursor, judged, parked)
        excluded = {offsets[index] for index in (*decided, *parked)}
        if len(fresh) < len(offsets):
            excluded |= _looked_up(cursor, prepared, journal_at)
        outcome = Outcome(
            folded=len(fresh) - len(rejections) - len(parked),
            rejected=_count(each.verdict for each in rejections.values()),
            parked=_count(each.reason for each in parked.values()),
        )
        return outcome, excluded

    def _settle(self, cursor: Cursor[Any], prepared: Prepared, excluded: set[int], journal_at: int) -> list[Settled]:
        facts = [fact for fact in prepared.settlements if fact[0] not in excluded]
        if not facts:
            return []
        return settle(cursor, self._codec, prepared.judged.batch, facts, journal_at, prepared.refused)

    def _merge(
        self,
        cursor: Cursor[Any],
        prepared: Prepared,
        generation: Generation,
        excluded: set[int],
        settled: Sequence[Settled],
    ) -> None:
        batch, projection = prepared.judged.batch, generation.projection
        if generation.next_offset >= batch.end:
            return
        if excluded or generation.next_offset > batch.start:
            left = [f for f in prepared.facts if f[0] >= generation.next_offset and f[0] not in excluded]
            partial = projection.fold(left)
        else:
            partial = prepared.partials[projection.name]
        if settled:
            late = [fact for at, facts in settled if at >= generation.next_offset for fact in facts]
            partial = projection.combine(partial, projection.fold(late))
        projection.merge(cursor, generation.schema, partial, batch.partition)


def _border(prepared: Prepared) -> int | None:
    """Where to cut a conditional topic's batch, so that each settlement stands alone: what it releases is folded before
    the records after it, wherever the batch was cut before.
    """
    batch = prepared.judged.batch
    if batch.topic.kind is TopicKind.TELEMETRY or not prepared.settlements or len(batch) == 1:
        return None
    return min(batch.offsets.index(offset) for offset, _, _ in prepared.settlements) or 1


def _behind(
    cursor: Cursor[Any], judged: Judged, accepted: Sequence[int], parked: Mapping[int, PoisonRecord]
) -> dict[int, PoisonRecord]:
    """Those accepted records that are parked because an earlier one of their aggregate is."""
    keys, behind = judged.aggregate_ids, {}
    blocked = held_up(cursor, judged.batch, [keys[index] for index in accepted])
    for index in accepted:
        if index in parked:
            blocked.add(keys[index])
        elif keys[index] in blocked and judged.event_types[index] not in ON_EVERY_TOPIC:
            behind[index] = PoisonRecord(BEHIND, "an earlier record of its aggregate is parked")
    return behind


def _looked_up(cursor: Cursor[Any], prepared: Prepared, journal_at: int) -> set[int]:
    """Offsets of the batch below the journal's checkpoint that were rejected or parked when they were judged."""
    batch = prepared.judged.batch
    cursor.execute(
        UNFOLDED,
        {"topic": batch.topic.name, "partition": batch.partition, "start": batch.start, "end": journal_at},
    )
    unfolded = {offset for (offset,) in cursor}
    for index, poison in prepared.parked.items():
        if batch.offsets[index] < journal_at and batch.offsets[index] not in unfolded:
            raise Misconfigured(
                f"{batch.topic.name}[{batch.partition}] offset {batch.offsets[index]} has been folded before, but this "
                f"version cannot read it ({poison}): use the version that could"
            )
    return unfolded


def _advance(cursor: Cursor[Any], batch: Batch, generations: Sequence[Generation]) -> None:
    log_time_ms = batch.log_times_ms[-1] if batch.log_times_ms else None
    moved = [(JOURNAL, 0), *((each.projection.name, each.number) for each in generations)]
    cursor.executemany(
        ADVANCE,
        [
            (batch.end, log_time_ms, batch.topic.name, batch.partition, name, number, batch.end)
            for name, number in moved
        ],
    )


def _count(names: Any) -> dict[str, int]:
    counts: dict[str, int] = {}
    for name in names:
        counts[str(name)] = counts.get(str(name), 0) + 1
    return counts


LOCK_CHECKPOINTS: Final = f"""
SELECT projection, generation, next_offset
  FROM {CORE}.checkpoints
 WHERE topic = %s AND partition = %s
 ORDER BY projection, generation
   FOR UPDATE
"""

CHECKPOINTS: Final = f"""
SELECT c.topic, c.partition, c.projection, g.fold_version, c.next_offset
  FROM {CORE}.checkpoints c
  LEFT JOIN {CORE}.generations g USING (projection, generation)
 WHERE c.projection = '{JOURNAL}' OR g.state = 'live'
"""

LIVE_GENERATIONS: Final = f"""
SELECT projection, generation, schema_name, fold_version
  FROM {CORE}.generations
 WHERE state = 'live'
 ORDER BY projection
"""

ADVANCE: Final = f"""
UPDATE {CORE}.checkpoints
   SET next_offset = %s,
       log_time = coalesce(to_timestamp(%s::double precision / 1000), log_time)
 WHERE topic = %s AND partition = %s AND projection = %s AND generation = %s AND next_offset < %s
"""

UNFOLDED: Final = f"""
SELECT kafka_offset FROM {CORE}.rejected
 WHERE topic = %(topic)s AND partition = %(partition)s AND kafka_offset >= %(start)s AND kafka_offset < %(end)s
UNION ALL
SELECT kafka_offset FROM {CORE}.parked
 WHERE topic = %(topic)s AND partition = %(partition)s AND kafka_offset >= %(start)s AND kafka_offset < %(end)s
"""
