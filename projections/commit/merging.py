"""Writes what a batch says into one generation's tables, inside the caller's transaction; live commits and rebuilds share it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from psycopg import Cursor

from spanfold.language.errors import Misconfigured, PoisonRecord
from spanfold.language.positions import Position
from spanfold.projections.commit.batch import Batch
from spanfold.projections.commit.erasure import Erasure, erased_among, left_out
from spanfold.projections.commit.journal import CORE
from spanfold.projections.commit.preparing import Prepared
from spanfold.projections.commit.settlements import Settled
from spanfold.projections.commit.suspension import (
    MERGE_TIMEOUT_S,
    ProjectionFailed,
    failure_of,
    failures_named,
    is_its_own_fault,
    limited,
    position_of,
    undone,
)
from spanfold.projections.facts import Fact
from spanfold.projections.projection import ErasesTraces, Projection


@dataclass(frozen=True, slots=True)
class Generation:
    """A generation that this process folds, and where it stands in the batch's partition."""

    projection: Projection
    number: int
    schema: str
    next_offset: int

    @property
    def owner(self) -> tuple[str, int]:
        """What its checkpoints are registered by."""
        return self.projection.name, self.number


def merge(
    cursor: Cursor[Any],
    prepared: Prepared,
    generation: Generation,
    unfolded: set[int],
    settled: Sequence[Settled],
    erasures: Sequence[Erasure],
    timeout_s: float = MERGE_TIMEOUT_S,
) -> ProjectionFailed | None:
    """Merge what lies at or above the generation's checkpoint and is not `unfolded` (offsets), and what was settled there;
    then take out what was erased there. All in a savepoint: the failure for which the projection is to be suspended is
    returned, and nothing of the merge is left; any other error is raised.
    """
    batch, projection = prepared.batch, generation.projection
    if generation.next_offset >= batch.end:
        return None
    late = [fact for at, facts in settled if at >= generation.next_offset for fact in facts]
    passed = [erasure for erasure in erasures if erasure.offset >= generation.next_offset]
    try:
        with cursor.connection.transaction(), limited(cursor, projection, timeout_s):
            _merge(cursor, generation, _folded(prepared, generation, unfolded, late), batch.partition)
            erase(cursor, generation, passed, batch.partition)
    except Exception as error:  # the projection's code may raise anything
        if not is_its_own_fault(error, projection, cursor):
            raise
        again = partial(_try, cursor, generation, batch.partition, timeout_s)
        facts = [*_facts(prepared, generation, unfolded), *late]
        return failure_of(
            projection, error, position_of(batch, [] if isinstance(error, TimeoutError) else facts, again)
        )
    return None


def _folded(prepared: Prepared, generation: Generation, unfolded: set[int], late: Sequence[Fact]) -> Any:
    """The partial of what the generation lacks; the prepared one, if that is the whole batch."""
    projection = generation.projection
    if unfolded or generation.next_offset > prepared.batch.start or projection.name not in prepared.partials:
        folded = projection.fold(_facts(prepared, generation, unfolded))
    else:
        folded = prepared.partials[projection.name]
    return projection.combine(folded, projection.fold(late)) if late else folded


def _facts(prepared: Prepared, generation: Generation, unfolded: set[int]) -> list[Fact]:
    return [fact for fact in prepared.facts if fact[0] >= generation.next_offset and fact[0] not in unfolded]


def _merge(cursor: Cursor[Any], generation: Generation, folded: Any, partition: int) -> None:
    generation.projection.merge(cursor, generation.schema, folded, partition)


def _try(cursor: Cursor[Any], generation: Generation, partition: int, timeout_s: float, facts: Sequence[Fact]) -> None:
    """Raise what the projection raises on these facts; nothing is left of them."""
    with undone(cursor), limited(cursor, generation.projection, timeout_s):
        _merge(cursor, generation, generation.projection.fold(facts), partition)


def erase_at_rest(
    cursor: Cursor[Any], generation: Generation, erasures: Sequence[Erasure], batch: Batch, timeout_s: float
) -> ProjectionFailed | None:
    """Take these traces out of a generation that workers do not fold; what its projection raises is treated as in `merge`."""
    projection = generation.projection
    where = f"{Position(batch.topic.name, batch.partition, erasures[0].offset)}, which erases a trace,"
    try:
        with (
            failures_named(projection, where, cursor),
            cursor.connection.transaction(),
            limited(cursor, projection, timeout_s),
        ):
            erase(cursor, generation, erasures, batch.partition)
    except ProjectionFailed as failure:
        return failure
    return None


def erase(cursor: Cursor[Any], generation: Generation, erasures: Sequence[Erasure], partition: int) -> None:
    """Take these traces out of the generation's tables, if its projection says how."""
    if erasures and isinstance(generation.projection, ErasesTraces):
        ids = [erasure.aggregate_id for erasure in erasures]
        generation.projection.erase(cursor, generation.schema, ids, partition)


def unfolded_below(
    cursor: Cursor[Any], batch: Batch, judged_to: int, unreadable: Mapping[int, PoisonRecord]
) -> set[int]:
    """Offsets of the batch below `judged_to` that were rejected or parked when they were judged, or whose trace was erased by
    then or later. Misconfigured when one of the `unreadable` (by offset) is not among them: it has been folded before.
    """
    if not batch or batch.offsets[0] >= judged_to:
        return set()
    where = {"topic": batch.topic.name, "partition": batch.partition, "start": batch.start}
    cursor.execute(UNFOLDED, {**where, "end": min(judged_to, batch.end)})
    unfolded = {offset for (offset,) in cursor} | left_out(batch, erased_among(cursor, batch), judged_to)
    for offset, poison in unreadable.items():
        if offset < judged_to and offset not in unfolded:
            raise no_longer_readable(batch, offset, poison)
    return unfolded


def no_longer_readable(batch: Batch, offset: int, poison: PoisonRecord) -> Misconfigured:
    """What a fold ends with that meets a record which was folded before, and which this code can't read."""
    return Misconfigured(
        f"{Position(batch.topic.name, batch.partition, offset)} has been folded before, but this "
        f"version cannot read it ({poison}): use the version that could"
    )


def advance(cursor: Cursor[Any], batch: Batch, owners: Iterable[tuple[str, int]]) -> None:
    """Move the checkpoints of these (projection, generation) to the batch's end."""
    log_time_ms = batch.log_times_ms[-1] if batch.log_times_ms else None
    where = (batch.topic.name, batch.partition)
    cursor.executemany(ADVANCE, [(batch.end, log_time_ms, *where, name, number, batch.end) for name, number in owners])


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
