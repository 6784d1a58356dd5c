"""Traces that were erased (docs/adr/0014): whose records are not folded, and what goes where TraceErased lies.

A record erases by its headers alone, as every verdict: one of type TraceErased, accepted on an erasable topic. What it leaves
is its row in `erased`, by which later records of the key are rejected, and earlier ones are left out when they are folded again.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, NamedTuple

from psycopg import Connection, Cursor, sql

from spanfold.projections.commit.batch import Batch
from spanfold.projections.commit.journal import CORE, journal_table
from spanfold.projections.commit.verdicts import Judged, Rejection, Verdict

Erased = Mapping[bytes, int]
"""Keys that were erased on a topic, with the offset of TraceErased in the partition that the key belongs to."""

ERASED: Final = Rejection(Verdict.ERASED, "its trace was erased before")

FEW: Final = 1000
"""Up to so many erased keys are read with every batch. Of more, those of the batch are looked up, which takes longer."""

NAMELESS: Final = "its trace was erased"
"""Why a record was rejected or parked, once that might name the trace."""

_ON_KEYS_OF_THEIR_OWN: Final = (Verdict.MALFORMED, Verdict.MISROUTED)
"""Verdicts on records whose key may belong to any partition."""


class Erasure(NamedTuple):
    """TraceErased at `offset` of a batch's partition."""

    offset: int
    aggregate_id: str


def wait_for_erasures(cursor: Cursor[Any], judged: Judged, erasing: bool) -> None:
    """Keep apart, till the transaction ends, those who erase and those who reject records of keys that belong to any
    partition: whoever comes second sees what the other one has written.
    """
    if erasing:
        cursor.execute(LOCK_ALONE)
    elif judged.batch.topic.erasable and any(
        rejection.verdict in _ON_KEYS_OF_THEIR_OWN for rejection in judged.rejections.values()
    ):
        cursor.execute(LOCK_TOGETHER)


def erased_among(cursor: Cursor[Any], batch: Batch) -> Erased:
    """Those of the batch's keys that were erased on its topic."""
    if not batch.topic.erasable:
        return {}
    erased = cursor.execute(SOME_ERASED, (batch.topic.name, FEW + 1)).fetchall()
    if not erased:
        return {}
    keys = set(batch.keys)
    if len(erased) > FEW:
        texts = [key.decode(errors="replace") for key in keys if key and b"\0" not in key]
        erased = cursor.execute(ERASED_AMONG, (batch.topic.name, texts)).fetchall()
    return {key: offset for aggregate_id, offset in erased if (key := aggregate_id.encode()) in keys}


def rejected(judged: Judged, erased: Erased, indexes: Sequence[int]) -> dict[int, Rejection]:
    """Those of these records of the batch that came after their key had been erased."""
    if not erased:
        return {}
    keys, offsets = judged.batch.keys, judged.batch.offsets
    late = [index for index in indexes if offsets[index] > erased.get(keys[index] or b"", offsets[index])]
    return {
        index: ERASED
        for index in late
        if (before := judged.rejections.get(index)) is None or before.verdict not in _ON_KEYS_OF_THEIR_OWN
    }


def left_out(batch: Batch, erased: Erased, judged_to: int) -> set[int]:
    """Offsets below `judged_to` of records whose key was erased, by then or later."""
    if not erased:
        return set()
    below = zip(batch.offsets, batch.keys, strict=True)
    return {offset for offset, key in below if offset < judged_to and key in erased}


def register(cursor: Cursor[Any], judged: Judged, index: int) -> Erasure:
    """Note that the record at `index` has erased its key. The caller holds the partition's checkpoints."""
    batch = judged.batch
    erasure = Erasure(batch.offsets[index], judged.aggregate_ids[index])
    where = (batch.topic.name, batch.partition)
    # the feed of snapshots follows the sequence: numbers of a partition must become visible in their order
    cursor.execute(LOCK_SNAPSHOTS, where)
    cursor.execute(REGISTER, (*where, erasure.aggregate_id, erasure.offset, batch.log_times_ms[index] / 1000))
    return erasure


def erasures_in(cursor: Cursor[Any], batch: Batch) -> list[Erasure]:
    """Those that lie in the batch's range."""
    if not batch.topic.erasable:
        return []
    cursor.execute(ERASURES_IN, (batch.topic.name, batch.partition, batch.start, batch.end))
    return [Erasure(*row) for row in cursor]


def erasures_on(connection: Connection[Any], topics: Sequence[str]) -> int:
    """How many traces have been erased on these topics."""
    ((count,),) = connection.execute(ERASURES_ON, (list(topics),)).fetchall()
    return int(count)


def forget(cursor: Cursor[Any], batch: Batch, erasures: Collection[Erasure]) -> None:
    """Take the traces out of all that is kept beside the projections: journal, states and snapshots lose their rows; those of
    rejected and parked records stay where they are, and name nobody.
    """
    journal = journal_table(batch.topic).name
    # a snapshot that is just being saved is seen after this, and who saves one later sees that the trace was erased
    cursor.execute(LOCK_SAVED)
    for erasure in erasures:
        about = {
            "topic": batch.topic.name, "partition": batch.partition, "aggregate_id": erasure.aggregate_id,
            "key": erasure.aggregate_id.encode(), "at": erasure.offset, "why": NAMELESS,
        }  # fmt: skip
        for statement in FORGET:
            cursor.execute(sql.SQL(statement).format(journal=sql.Identifier(CORE, journal)), about)


_LOCK: Final = 0x65726173

LOCK_ALONE: Final = f"SELECT pg_advisory_xact_lock({_LOCK})"

LOCK_TOGETHER: Final = f"SELECT pg_advisory_xact_lock_shared({_LOCK})"

SOME_ERASED: Final = f"SELECT aggregate_id, kafka_offset FROM {CORE}.erased WHERE topic = %s LIMIT %s"

ERASED_AMONG: Final = (
    f"SELECT aggregate_id, kafka_offset FROM {CORE}.erased WHERE topic = %s AND aggregate_id = ANY (%s::text[])"
)

LOCK_SNAPSHOTS: Final = f"""
SELECT FROM {CORE}.checkpoints
 WHERE topic = %s AND partition = %s AND projection = 'snapshots'
 ORDER BY generation
   FOR UPDATE
"""

REGISTER: Final = f"""
INSERT INTO {CORE}.erased (topic, partition, aggregate_id, kafka_offset, log_time, sequence)
VALUES (%s, %s, %s, %s, to_timestamp(%s), nextval('{CORE}.snapshot_sequence'))
ON CONFLICT DO NOTHING
"""

ERASURES_IN: Final = f"""
SELECT kafka_offset, aggregate_id FROM {CORE}.erased
 WHERE topic = %s AND partition = %s AND kafka_offset >= %s AND kafka_offset < %s
 ORDER BY kafka_offset
"""

ERASURES_ON: Final = f"SELECT count(*) FROM {CORE}.erased WHERE topic = ANY (%s)"

LOCK_SAVED: Final = f"LOCK TABLE {CORE}.saved_snapshots IN SHARE ROW EXCLUSIVE MODE"

FORGET: Final = (
    "DELETE FROM {journal} WHERE aggregate_id = %(aggregate_id)s AND partition = %(partition)s",
    *(
        f"DELETE FROM {CORE}.{table} WHERE topic = %(topic)s AND aggregate_id = %(aggregate_id)s"
        for table in ("states", "snapshots", "saved_snapshots")
    ),
    f"""
    UPDATE {CORE}.parked
       SET event_id = NULL, aggregate_id = NULL, key = NULL, headers = NULL, payload = NULL,
           value_bytes = NULL, value_sha256 = NULL, detail = %(why)s,
           settled_as = 'erased', settled_offset = %(at)s
     WHERE topic = %(topic)s AND aggregate_id = %(aggregate_id)s
    """,
    f"""
    UPDATE {CORE}.rejected
       SET event_id = NULL, aggregate_id = NULL, key = NULL, headers = NULL, payload = NULL,
           value_bytes = NULL, value_sha256 = NULL, detail = %(why)s
     WHERE topic = %(topic)s
       AND (aggregate_id = %(aggregate_id)s OR (aggregate_id IS NULL AND key = %(key)s))
    """,
)
