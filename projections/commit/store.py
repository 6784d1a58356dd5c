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

from spanfold.language.errors import Misconfigured, PoisonRecord, SpanfoldError
from spanfold.language.parking import ParkedReason
from spanfold.language.topics import ON_EVERY_TOPIC, Topic, TopicKind
from spanfold.projections.commit.arbiter import Arbiter, arbiter_of
from spanfold.projections.commit.batch import Batch
from spanfold.projections.commit.erasure import (
    Erasure,
    erased_among,
    erasures_in,
    forget,
    register,
    rejected,
    wait_for_erasures,
)
from spanfold.projections.commit.journal import CORE, JOURNAL
from spanfold.projections.commit.merging import Generation, advance, erase, looked_up, merge, settled_by
from spanfold.projections.commit.preparing import Prepared, Preparer, border_of
from spanfold.projections.commit.settlements import held_up
from spanfold.projections.commit.unfolded import write_parked, write_rejected
from spanfold.projections.commit.verdicts import Judged
from spanfold.projections.generation_states import AT_REST, KEPT_UP, sql_list
from spanfold.projections.projection import Projection
from spanfold.schemas.codec import Codec

_REFUSED_CLASSES: Final = ("22", "23", "54")
"""SQLSTATE classes that one record's values can cause: data exception, integrity violation, program limit exceeded."""


class Gap(SpanfoldError):
    """A checkpoint lies before the batch: go back and read from `next_offset`."""

    def __init__(self, batch: Batch, next_offset: int) -> None:
        super().__init__(
            f"{batch.topic.name}/{batch.partition}: the batch starts at {batch.start}, the checkpoint is at {next_offset}"
        )
        self.next_offset = next_offset


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a batch. `fenced`: all of it had been committed already, by this worker or another."""

    folded: int = 0
    rejected: Mapping[str, int] = field(default_factory=dict)
    parked: Mapping[str, int] = field(default_factory=dict)
    fenced: bool = False


class Store:
    """Folds batches into the database behind `connection`. One per process and connection; not thread-safe.

    `reached(step)` is called before each named step of a commit: before_merge, before_commit. Tests stop there.
    `checkpoints` is the query whose rows `start_offsets` takes.
    """

    @property
    def checkpoints(self) -> str:
        return CHECKPOINTS

    def __init__(self, projections: Mapping[str, Projection], codec: Codec | None = None) -> None:
        self._projections = projections
        self._codec = codec or Codec()
        self._preparer = Preparer(projections, self._codec)
        self._arbiters: dict[str, Arbiter] = {}
        self.reached: Callable[[str], None] = lambda step: None

    def prepare(self, batch: Batch, refused: PoisonRecord | None = None) -> Prepared:
        """See Preparer.prepare."""
        return self._preparer.prepare(batch, refused)

    def commit(self, connection: Connection[Any], prepared: Prepared) -> list[Outcome]:
        """Commit the batch exactly once. If Postgres refuses a record's values, the batch is halved until that record
        stands alone and is parked. Raises Gap, or psycopg.OperationalError when nothing was committed and a retry may
        help.
        """
        batch = prepared.judged.batch
        if (border := border_of(prepared)) is not None:
            return [out for part in batch.split(border) for out in self.commit(connection, self.prepare(part))]
        try:
            return [self._commit_whole(connection, prepared)]
        except psycopg.Error as error:
            if (error.sqlstate or "")[:2] not in _REFUSED_CLASSES or not batch:
                raise
            if len(batch) == 1:
                refused = PoisonRecord(ParkedReason.REFUSED, f"{error.sqlstate}: {str(error).splitlines()[0]}")
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
            wait_for_erasures(cursor, prepared.judged, bool(prepared.erasures))
            outcome, excluded = self._decide(cursor, prepared, arbiter, journal_at)
            settled = settled_by(cursor, self._codec, prepared, excluded, journal_at)
            erasures = erasures_in(cursor, batch)
            self.reached("before_merge")
            for generation in generations:
                merge(cursor, prepared, generation, excluded, settled, erasures)
            self._erase_elsewhere(cursor, batch, [each for each in erasures if each.offset >= journal_at])
            advance(cursor, batch, [(JOURNAL, 0), *((each.projection.name, each.number) for each in generations)])
            self.reached("before_commit")
        return outcome

    def _add_arbiter(self, topic: Topic) -> Arbiter:
        self._arbiters[topic.name] = arbiter_of(topic)
        return self._arbiters[topic.name]

    def _lock(self, cursor: Cursor[Any], batch: Batch) -> tuple[int, list[Generation]]:
        """Lock the partition's checkpoints, then see which generations are kept: rows go there, wherever that is now."""
        where = (batch.topic.name, batch.partition)
        waited_for: list[str] = []
        while True:
            cursor.execute(LOCK_CHECKPOINTS, where)
            positions = {(name, number): offset for name, number, offset in cursor}
            cursor.execute(KEPT_GENERATIONS)
            kept = [row for row in cursor if self._carries(batch.topic.name, row[0], row[3])]
            if (JOURNAL, 0) not in positions:
                raise Misconfigured(
                    f"{where[0]}/{where[1]} has no checkpoint: register its topic with `spanfold migrate`"
                )
            # a generation that came to be kept while we waited for the locks is not locked yet
            missing = [name for name, number, _, _ in kept if (name, number) not in positions]
            if not missing:
                break
            if missing == waited_for:
                raise Misconfigured(
                    f"{' and '.join(missing)} has no checkpoint for {where[0]}: a projection that folds another topic is "
                    "another fold, give it a fold_version of its own and rebuild it"
                )
            waited_for = missing
        generations = [
            Generation(self._projections[name], number, schema, positions[name, number])
            for name, number, schema, _ in kept
        ]
        return positions[JOURNAL, 0], generations

    def _erase_elsewhere(self, cursor: Cursor[Any], batch: Batch, erasures: Sequence[Erasure]) -> None:
        """Take the traces out of what workers do not fold: the generations that nobody folds now, journal and snapshots."""
        if not erasures:
            return
        cursor.execute(RESTING_GENERATIONS, (batch.topic.name, batch.partition))
        for name, number, schema, fold_version, next_offset in cursor.fetchall():
            if self._carries(batch.topic.name, name, fold_version):
                resting = Generation(self._projections[name], number, schema, next_offset)
                erase(cursor, resting, erasures, batch.partition)
        forget(cursor, batch, erasures)

    def _carries(self, topic: str, name: str, fold_version: int) -> bool:
        projection = self._projections.get(name)
        if projection is None or projection.fold_version != fold_version:
            return False
        return any(each.name == topic for each in projection.topics)

    def start_offsets(self, checkpoints: Iterable[tuple[Any, ...]]) -> dict[tuple[str, int], int]:
        """Where to read each (topic, partition) from: the least checkpoint of the journal and of the kept generations
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
        erased = erased_among(cursor, judged.batch)
        late = rejected(judged, erased, fresh)
        refused = judged.rejections.keys() | late.keys()
        candidates = [index for index in fresh if index not in refused] if refused else fresh
        decided = late | (arbiter.decide(cursor, judged, candidates) if candidates else {})
        erasing = [index for index in prepared.erasures if index in candidates and index not in decided]
        for index in erasing:
            register(cursor, judged, index)
        rejections = {index: judged.rejections[index] for index in fresh if index in judged.rejections} | decided
        done = {*decided, *erasing}
        parked = {i: why for i, why in prepared.parked.items() if offsets[i] >= journal_at and i not in done}
        if judged.batch.topic.kind is TopicKind.CONDITIONAL:
            parked |= _behind(cursor, judged, [i for i in candidates if i not in decided], parked)
        if rejections:
            write_rejected(cursor, judged, rejections, nameless=erased)
        if parked:
            write_parked(cursor, judged, parked)
        excluded = {offsets[index] for index in (*decided, *parked)}
        if len(fresh) < len(offsets):
            excluded |= looked_up(cursor, prepared, journal_at)
        outcome = Outcome(
            folded=len(fresh) - len(rejections) - len(parked),
            rejected=_count(each.verdict for each in rejections.values()),
            parked=_count(each.reason for each in parked.values()),
        )
        return outcome, excluded


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
            behind[index] = PoisonRecord(ParkedReason.BEHIND, "an earlier record of its aggregate is parked")
    return behind


def _count(names: Any) -> dict[str, int]:
    counts: dict[str, int] = {}
    for name in names:
        counts[str(name)] = counts.get(str(name), 0) + 1
    return counts


LOCK_CHECKPOINTS: Final = f"""
SELECT projection, generation, next_offset
  FROM {CORE}.checkpoints c
 WHERE topic = %s AND partition = %s
   AND (projection = '{JOURNAL}' OR EXISTS (
       SELECT FROM {CORE}.generations g
        WHERE (g.projection, g.generation) = (c.projection, c.generation) AND g.state IN {sql_list(KEPT_UP)}))
 ORDER BY projection, generation
   FOR UPDATE
"""

CHECKPOINTS: Final = f"""
SELECT c.topic, c.partition, c.projection, g.fold_version, c.next_offset
  FROM {CORE}.checkpoints c
  LEFT JOIN {CORE}.generations g USING (projection, generation)
 WHERE c.projection = '{JOURNAL}' OR g.state IN {sql_list(KEPT_UP)}
"""

RESTING_GENERATIONS: Final = f"""
SELECT projection, generation, g.schema_name, g.fold_version, c.next_offset
  FROM {CORE}.checkpoints c
  JOIN {CORE}.generations g USING (projection, generation)
 WHERE c.topic = %s AND c.partition = %s AND g.state IN {sql_list(AT_REST)}
 ORDER BY projection, generation
   FOR UPDATE OF c
"""

KEPT_GENERATIONS: Final = f"""
SELECT projection, generation, schema_name, fold_version
  FROM {CORE}.generations
 WHERE state IN {sql_list(KEPT_UP)}
 ORDER BY projection, generation
"""
