"""Commits batches: verdicts, journal, rows and the next offset in one Postgres transaction, fenced by the checkpoints.

Law 2 lives here. A batch covers [start, end) of one partition. In its transaction the checkpoints are locked first; what
they have passed is not folded again, and if one of them lies before `start`, something would be skipped: `Gap`. So it does
not matter who commits, how often, or what a process believes that it owns.

`Store._transact` has the steps of the transaction in their order. Beside it, deciding.py says what becomes of each record, and
merging.py how a generation's tables take what is folded.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import psycopg
from psycopg import Connection, Cursor

from spanfold.language.errors import Misconfigured, PoisonRecord
from spanfold.language.parking import ParkedReason
from spanfold.language.positions import NextOffsets
from spanfold.language.topics import Partition, Topic
from spanfold.projections.commit.arbiter import Arbiter, arbiter_of
from spanfold.projections.commit.batch import Batch, Gap, Outcome
from spanfold.projections.commit.deciding import decide, keep_unfolded
from spanfold.projections.commit.erasure import Erasure, erasures_in, forget, wait_for_erasures
from spanfold.projections.commit.journal import CORE, JOURNAL
from spanfold.projections.commit.merging import Generation, advance, erase_at_rest, merge, unfolded_below
from spanfold.projections.commit.preparing import Prepared, Preparer, border_of
from spanfold.projections.commit.settlements import settle
from spanfold.projections.commit.suspension import MERGE_TIMEOUT_S, REFUSED_CLASSES, ProjectionFailed, suspend
from spanfold.projections.commit.topic_suspension import (
    ParkedShareExceeded,
    TopicSuspended,
    count_parked,
    refuse_suspended,
    suspend_topic,
)
from spanfold.projections.generation_states import AT_REST, kept_up, sql_list
from spanfold.projections.projection import Projection
from spanfold.schemas.codec import Codec


class Store:
    """Folds batches into the database behind `connection`. One per process and connection; not thread-safe.

    `reached(step)` is called before each named step of a commit: before_merge, before_commit. Tests stop there.
    """

    def __init__(
        self,
        projections: Mapping[str, Projection],
        codec: Codec | None = None,
        merge_timeout_s: float = MERGE_TIMEOUT_S,
        parked_share_limit: float = 1.0,
    ) -> None:
        self._merge_timeout_s, self._parked_share_limit = merge_timeout_s, parked_share_limit
        self._projections = projections
        self._codec = codec or Codec()
        self._preparer = Preparer(projections, self._codec)
        self._arbiters: dict[str, Arbiter] = {}
        self.reached: Callable[[str], None] = lambda step: None

    @property
    def checkpoints(self) -> str:
        """The query whose rows `start_offsets` takes."""
        return CHECKPOINTS

    def start_offsets(self, checkpoints: Iterable[tuple[Any, ...]]) -> NextOffsets:
        """Where to read each partition from: the least checkpoint of the journal and of the generations that this process keeps
        up. `checkpoints` are rows of CHECKPOINTS.
        """
        start: dict[Partition, int] = {}
        for topic, partition, name, fold_version, next_offset in checkpoints:
            if name == JOURNAL or self._carries(topic, name, fold_version):
                start[topic, partition] = min(next_offset, start.get((topic, partition), next_offset))
        return start

    def prepare(self, batch: Batch, refused: PoisonRecord | None = None) -> Prepared:
        """See Preparer.prepare."""
        return self._preparer.prepare(batch, refused)

    def commit(self, connection: Connection[Any], prepared: Prepared) -> list[Outcome]:
        """Commit the batch exactly once. If Postgres refuses a record's values, the batch is halved until that record
        stands alone and is parked. Raises Gap, TopicSuspended, or psycopg.OperationalError when nothing was committed and a
        retry may help.
        """
        batch = prepared.batch
        if (border := border_of(prepared)) is not None:
            return self._commit_parts(connection, batch.split(border))
        try:
            return [self._commit_once(connection, prepared)]
        except psycopg.Error as error:
            if (error.sqlstate or "")[:2] not in REFUSED_CLASSES or not batch:
                raise
            if len(batch) == 1:
                refused = PoisonRecord(ParkedReason.REFUSED, f"{error.sqlstate}: {str(error).splitlines()[0]}")
                return [self._commit_once(connection, self.prepare(batch, refused))]
        return self._commit_parts(connection, batch.split(len(batch) // 2))

    def _commit_parts(self, connection: Connection[Any], parts: Iterable[Batch]) -> list[Outcome]:
        return [outcome for part in parts for outcome in self.commit(connection, self.prepare(part))]

    def _commit_once(self, connection: Connection[Any], prepared: Prepared) -> Outcome:
        """Commit the batch, or suspend its topic."""
        try:
            return self._transact(connection, prepared)
        except ParkedShareExceeded as error:
            topic = prepared.batch.topic.name
            suspend_topic(connection, topic, str(error))
            raise TopicSuspended(topic, str(error)) from error

    def _transact(self, connection: Connection[Any], prepared: Prepared) -> Outcome:
        """The transaction of one batch, all of it or nothing."""
        batch = prepared.batch
        arbiter = self._arbiter_of(batch.topic)
        arbiter.prepare(connection, batch.log_times_ms)
        with connection.transaction(), connection.cursor() as cursor:
            # whoever else commits this partition waits here, and then finds the batch below the checkpoints
            judged_to, generations = self._lock(cursor, batch)
            if _is_fenced(batch, [judged_to, *(generation.next_offset for generation in generations)]):
                return Outcome(fenced=True)
            refuse_suspended(cursor, batch.topic.name)

            # verdicts of what the journal has not judged yet; what it has judged is looked up
            wait_for_erasures(cursor, prepared.judged, bool(prepared.erasures))
            decision = decide(cursor, prepared, arbiter, judged_to)
            count_parked(cursor, batch, decision.fresh, decision.parked, self._parked_share_limit)
            keep_unfolded(cursor, prepared.judged, decision)
            unfolded = decision.unfolded | unfolded_below(cursor, batch, judged_to, prepared.unreadable)

            # what facts about other records do: parked ones become foldable, erased ones go
            settled = settle(cursor, self._codec, prepared, unfolded, judged_to)
            erasures = erasures_in(cursor, batch)

            # rows of every generation that is kept up, each from its own checkpoint on; one that fails is suspended
            self.reached("before_merge")
            failures: dict[tuple[str, int], ProjectionFailed] = {}
            for generation in generations:
                failure = merge(cursor, prepared, generation, unfolded, settled, erasures, self._merge_timeout_s)
                if failure is not None:
                    failures[generation.owner] = failure
                    suspend(cursor, *generation.owner, failure)
            self._erase_elsewhere(cursor, batch, [erasure for erasure in erasures if erasure.offset >= judged_to])
            folded = [generation.owner for generation in generations if generation.owner not in failures]
            advance(cursor, batch, [(JOURNAL, 0), *folded])
            self.reached("before_commit")
        return replace(decision.outcome(), suspended={name: str(why) for (name, _), why in failures.items()})

    def _arbiter_of(self, topic: Topic) -> Arbiter:
        if topic.name not in self._arbiters:
            self._arbiters[topic.name] = arbiter_of(topic)
        return self._arbiters[topic.name]

    def _lock(self, cursor: Cursor[Any], batch: Batch) -> tuple[int, list[Generation]]:
        """Lock the partition's checkpoints, then see which generations are kept up: rows go there, wherever that is now. Returns
        the journal's checkpoint, and the generations.
        """
        partition = (batch.topic.name, batch.partition)
        waited_for: list[str] = []
        while True:
            cursor.execute(LOCK_CHECKPOINTS, partition)
            checkpoints = {(name, number): offset for name, number, offset in cursor}
            if (JOURNAL, 0) not in checkpoints:
                raise _unregistered(batch)
            cursor.execute(KEPT_GENERATIONS)
            kept = [row for row in cursor if self._carries(batch.topic.name, row[0], row[3])]
            # a generation that came to be kept up while we waited for the locks is not locked yet
            unlocked = [name for name, number, _, _ in kept if (name, number) not in checkpoints]
            if not unlocked:
                break
            if unlocked == waited_for:
                raise _other_topics(batch, unlocked)
            waited_for = unlocked
        generations = [
            Generation(self._projections[name], number, schema, checkpoints[name, number])
            for name, number, schema, _ in kept
        ]
        return checkpoints[JOURNAL, 0], generations

    def _erase_elsewhere(self, cursor: Cursor[Any], batch: Batch, erasures: Sequence[Erasure]) -> None:
        """Take the traces out of what workers do not fold: generations at rest or suspended, journal and snapshots."""
        if not erasures:
            return
        cursor.execute(GENERATIONS_AT_REST, (batch.topic.name, batch.partition))
        for name, number, schema, fold_version, next_offset in cursor.fetchall():
            if self._carries(batch.topic.name, name, fold_version):
                resting = Generation(self._projections[name], number, schema, next_offset)
                failure = erase_at_rest(cursor, resting, erasures, batch, self._merge_timeout_s)
                if failure is not None:
                    suspend(cursor, name, number, failure)
        forget(cursor, batch, erasures)

    def _carries(self, topic: str, name: str, fold_version: int) -> bool:
        """Whether this process folds the topic into a generation of this projection and fold version."""
        projection = self._projections.get(name)
        if projection is None or projection.fold_version != fold_version:
            return False
        return any(folded.name == topic for folded in projection.topics)


def _is_fenced(batch: Batch, checkpoints: Iterable[int]) -> bool:
    """Whether all of the batch has been committed already. Gap when the batch would skip something."""
    lowest = min(checkpoints)
    if lowest < batch.start:
        raise Gap(batch, lowest)
    return lowest >= batch.end


def _unregistered(batch: Batch) -> Misconfigured:
    return Misconfigured(
        f"{batch.topic.name}/{batch.partition} has no checkpoint: register its topic with `spanfold migrate`"
    )


def _other_topics(batch: Batch, projections: Sequence[str]) -> Misconfigured:
    return Misconfigured(
        f"{' and '.join(projections)} has no checkpoint for {batch.topic.name}: a projection that folds another topic is another "
        "fold, give it a fold_version of its own and rebuild it"
    )


LOCK_CHECKPOINTS: Final = f"""
SELECT projection, generation, next_offset
  FROM {CORE}.checkpoints c
 WHERE topic = %s AND partition = %s
   AND (projection = '{JOURNAL}' OR EXISTS (
       SELECT FROM {CORE}.generations g
        WHERE (g.projection, g.generation) = (c.projection, c.generation) AND {kept_up("g")}))
 ORDER BY projection, generation
   FOR UPDATE
"""

CHECKPOINTS: Final = f"""
SELECT c.topic, c.partition, c.projection, g.fold_version, c.next_offset
  FROM {CORE}.checkpoints c
  LEFT JOIN {CORE}.generations g USING (projection, generation)
 WHERE c.projection = '{JOURNAL}' OR {kept_up("g")}
"""

GENERATIONS_AT_REST: Final = f"""
SELECT projection, generation, g.schema_name, g.fold_version, c.next_offset
  FROM {CORE}.checkpoints c
  JOIN {CORE}.generations g USING (projection, generation)
 WHERE c.topic = %s AND c.partition = %s AND (g.state IN {sql_list(AT_REST)} OR g.suspended_at IS NOT NULL)
 ORDER BY projection, generation
   FOR UPDATE OF c
"""

KEPT_GENERATIONS: Final = f"""
SELECT projection, generation, schema_name, fold_version
  FROM {CORE}.generations g
 WHERE {kept_up("g")}
 ORDER BY projection, generation
"""
