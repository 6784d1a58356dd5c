"""Folds batches into one generation beside the live ones, below the journal's checkpoint: how rebuilds and as-of load.

Nothing is judged here. Which records were rejected or parked, what was retried where, and which traces were erased is looked
up, so that a generation has the rows that it would have had if it had been live from the start.
"""

from typing import Any, Final

from psycopg import Connection

from spanfold.language.errors import Misconfigured
from spanfold.language.positions import NextOffsets
from spanfold.projections.commit.batch import Batch
from spanfold.projections.commit.checkpoints import lock_checkpoint
from spanfold.projections.commit.erasure import erasures_in
from spanfold.projections.commit.journal import CORE
from spanfold.projections.commit.merging import Generation, advance, merge, unfolded_below
from spanfold.projections.commit.preparing import Prepared, Preparer
from spanfold.projections.commit.settlements import settle
from spanfold.projections.commit.suspension import MERGE_TIMEOUT_S, failures_named
from spanfold.projections.projection import FoldsStates, Projection
from spanfold.projections.states.reading import NEVER_TOO_IDLE, Standing
from spanfold.projections.states.rows import FoldedPartition
from spanfold.schemas.codec import Codec


class Shadow:
    """One generation that is being loaded. Not thread-safe, but `prepare` may run while `commit` does."""

    def __init__(
        self, projection: Projection, number: int, schema: str, merge_timeout_s: float = MERGE_TIMEOUT_S
    ) -> None:
        self._projection, self._number, self._schema = projection, number, schema
        self._merge_timeout_s = merge_timeout_s
        self._codec = Codec()
        self._preparer = Preparer({projection.name: projection}, self._codec)

    def prepare(self, batch: Batch) -> Prepared:
        """See Preparer.prepare_again."""
        return self._preparer.prepare_again(batch)

    def commit(self, connection: Connection[Any], prepared: Prepared) -> None:
        """Fold what lies at or above the generation's checkpoint, and move that to the batch's end, in one transaction. A
        worker may fold the same generation meanwhile.

        Misconfigured when this code cannot read a record that was folded, or when the batch skips records; ProjectionFailed
        when the projection's own code or tables fail.
        """
        batch = prepared.batch
        with connection.transaction(), connection.cursor() as cursor:
            where = (batch.topic.name, batch.partition)
            locked = lock_checkpoint(cursor, *where, self._projection.name, self._number)
            if locked is None:
                raise Misconfigured(f"{self._schema} has no checkpoint for {where[0]}/{where[1]}: load it anew")
            next_offset, judged_to = locked
            if next_offset < batch.start or batch.end > judged_to:
                raise Misconfigured(
                    f"{where[0]}/{where[1]}: a batch of [{batch.start}, {batch.end}) leaves a gap after {next_offset}, or is "
                    f"not judged yet (up to {judged_to})"
                )
            unfolded = unfolded_below(cursor, batch, judged_to, prepared.unreadable)
            settled = settle(cursor, self._codec, prepared, unfolded, judged_to)
            generation = Generation(self._projection, self._number, self._schema, next_offset)
            erasures = erasures_in(cursor, batch)
            failure = merge(cursor, prepared, generation, unfolded, settled, erasures, self._merge_timeout_s)
            if failure is not None:
                raise failure
            advance(cursor, batch, [(self._projection.name, self._number)])

    def commit_states(self, connection: Connection[Any], folded: FoldedPartition, standing: Standing) -> int:
        """Fold all states of a partition into a generation that has nothing of it yet, and move its checkpoint to where they
        stand, in one transaction. Returns how many there were. TypeError when the projection folds no states.
        """
        projection, count = self._projection, 0
        if not isinstance(projection, FoldsStates):
            raise TypeError(f"{projection.name} does not fold states")
        where = (folded.topic.name, folded.partition, projection.name, self._number)
        with connection.transaction(), connection.cursor() as cursor:
            cursor.execute(NEVER_TOO_IDLE)
            locked = lock_checkpoint(cursor, *where)
            if locked is not None and locked[0] > 0:
                return 0
            for batch in standing.batches:
                with failures_named(projection, f"the states of {where[0]}/{where[1]}", cursor):
                    projection.merge(cursor, self._schema, projection.from_states(batch), folded.partition)
                # temporary tables are emptied by a commit, and there will be one for all batches
                cursor.execute("DISCARD TEMP")
                count += len(batch)
            cursor.execute(BEGIN_AT, (standing.next_offset, standing.log_time, *where))
        return count


def next_offsets_of(connection: Connection[Any], projection: str, generation: int) -> NextOffsets:
    """Where the generation stands in each partition; the journal is generation 0 of JOURNAL."""
    rows = connection.execute(NEXT_OFFSETS, (projection, generation))
    return {(topic, partition): next_offset for topic, partition, next_offset in rows}


NEXT_OFFSETS: Final = (
    f"SELECT topic, partition, next_offset FROM {CORE}.checkpoints WHERE projection = %s AND generation = %s"
)

BEGIN_AT: Final = f"""
UPDATE {CORE}.checkpoints SET next_offset = %s, log_time = %s
 WHERE topic = %s AND partition = %s AND projection = %s AND generation = %s
"""
