"""The journal of a conditional topic: here the log arbitrates appends that expect a version.

Never to change (docs/adr/0007): the first record in partition order whose expected version equals its aggregate's is accepted and
raises that version by one, the others are conflicts; a duplicate is found before the version is looked at; the first verdict on
an event id is final, also a rejection. A record is one append: several events travel as one EventBatch, judged whole.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final

from psycopg import Connection, Cursor, sql
from sqlalchemy import (
    BigInteger,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    Uuid,
)

from spanfold.language.topics import Topic
from spanfold.postgres.copying import PG_EPOCH_US, CopyTarget
from spanfold.projections.commit.cut import head
from spanfold.projections.commit.journal import CORE, record_columns
from spanfold.projections.commit.reading import MIN_TIME_US
from spanfold.projections.commit.verdicts import Judged, Rejection, Verdict

_HEADS: Final = CopyTarget(
    Table(
        "heads",
        MetaData(schema=CORE),
        Column("topic", Text),
        Column("aggregate_id", Text),
        Column("version", BigInteger),
    )
)

_FIRST_VERDICTS: Final = CopyTarget(
    Table(
        "first_verdicts",
        MetaData(schema=CORE),
        Column("topic", Text),
        Column("partition", Integer),
        Column("event_id", Uuid),
        Column("kafka_offset", BigInteger),
        Column("verdict", Text),
        Column("version", BigInteger),
    )
)


def conditional_journal_table(topic: Topic) -> Table:
    """The shape of the topic's journal: one row an accepted record, versions without holes."""
    name = f"journal_{topic.short_name}"
    return Table(
        name,
        MetaData(schema=CORE),
        *record_columns(),
        Column("version", BigInteger, nullable=False),
        Column("payload", LargeBinary),
        Index(f"{name}_version", "aggregate_id", "version", unique=True),
    )


CONDITIONAL_SELECT: Final = """
SELECT '{topic}'::text AS topic, partition::integer AS partition, kafka_offset, version,
       event_id, event_type, aggregate_id, occurred_at, log_time, payload
  FROM {table}"""


class ConditionalJournal:
    """The journal of one conditional topic, as `Arbiter`."""

    select = CONDITIONAL_SELECT

    def __init__(self, topic: Topic) -> None:
        self.topic = topic
        self.table = conditional_journal_table(topic)
        self._target = CopyTarget(self.table)

    def prepare(self, connection: Connection[Any], log_times_ms: Sequence[int]) -> None:
        """Nothing has to be there beforehand."""

    def decide(self, cursor: Cursor[Any], judged: Judged, indexes: Sequence[int]) -> dict[int, Rejection]:
        """Judge these records in offset order, keep every first verdict, and return the rejections."""
        before = self._decided_before(cursor, judged, indexes)
        heads = self._heads(cursor, judged, indexes)
        verdicts = _arbitrate(judged, indexes, before, heads)
        rejections = {index: verdict for index, verdict in verdicts.items() if isinstance(verdict, Rejection)}
        versions = {index: verdict for index, verdict in verdicts.items() if isinstance(verdict, int)}
        self._target.copy(cursor, CORE, _journal_rows(judged, versions))
        _FIRST_VERDICTS.copy(cursor, CORE, _decided_rows(judged, verdicts))
        raised = {judged.aggregate_ids[index]: version for index, version in versions.items()}
        incoming = _HEADS.copy_incoming(cursor, CORE, ((self.topic.name, key, head) for key, head in raised.items()))
        cursor.execute(sql.SQL(RAISE_HEADS).format(incoming=incoming))
        return rejections

    def _decided_before(self, cursor: Cursor[Any], judged: Judged, indexes: Sequence[int]) -> set[bytes]:
        ids = [judged.event_ids[index].hex() for index in indexes]
        cursor.execute(DECIDED_BEFORE, (self.topic.name, judged.batch.partition, ids))
        return {event_id.bytes for (event_id,) in cursor}

    def _heads(self, cursor: Cursor[Any], judged: Judged, indexes: Sequence[int]) -> dict[str, int]:
        keys = list({judged.aggregate_ids[index] for index in indexes})
        cursor.execute(HEADS, (self.topic.name, keys))
        return dict(cursor.fetchall())


def _arbitrate(
    judged: Judged, indexes: Sequence[int], seen: set[bytes], heads: dict[str, int]
) -> dict[int, Rejection | int]:
    """By index: the version that an accepted record has, or why it is rejected. Pure; moves `seen` and `heads` on."""
    verdicts: dict[int, Rejection | int] = {}
    for index in indexes:
        event_id, key, expected = judged.event_ids[index], judged.aggregate_ids[index], judged.expected_versions[index]
        head = heads.get(key, 0)
        if event_id in seen:
            verdicts[index] = Rejection(Verdict.DUPLICATE, "its event id has had a verdict before")
        elif expected is not None and expected != head:
            verdicts[index] = Rejection(Verdict.CONFLICT, f"it expects version {expected}, {key} is at {head}")
        else:
            verdicts[index] = heads[key] = head + 1
        seen.add(event_id)
    return verdicts


def _journal_rows(judged: Judged, versions: dict[int, int]) -> Iterator[tuple[Any, ...]]:
    batch = judged.batch
    for i, version in versions.items():
        yield (
            batch.partition, batch.offsets[i], judged.event_ids[i], judged.aggregate_ids[i], judged.event_types[i],
            # nothing is too old for a verdict, but for Postgres: such a record is parked, and stands at its first instant
            max(judged.occurred_at[i], MIN_TIME_US) - PG_EPOCH_US,
            batch.log_times_ms[i] * 1000 - PG_EPOCH_US, version, head(batch.values[i]),
        )  # fmt: skip


def _decided_rows(judged: Judged, verdicts: dict[int, Rejection | int]) -> Iterator[tuple[Any, ...]]:
    batch = judged.batch
    for i, verdict in verdicts.items():
        position = (batch.topic.name, batch.partition, judged.event_ids[i], batch.offsets[i])
        if isinstance(verdict, int):
            yield (*position, Verdict.ACCEPTED.value, verdict)
        elif verdict.verdict is not Verdict.DUPLICATE:
            yield (*position, verdict.verdict.value, None)


DECIDED_BEFORE: Final = f"""
SELECT event_id FROM {CORE}.first_verdicts
 WHERE topic = %s AND partition = %s AND event_id = ANY (%s::uuid[])
"""

HEADS: Final = f"""
SELECT aggregate_id, version FROM {CORE}.heads
 WHERE topic = %s AND aggregate_id = ANY (%s)
"""

RAISE_HEADS: Final = f"""
INSERT INTO {CORE}.heads
SELECT topic, aggregate_id, version FROM {{incoming}}
ON CONFLICT (topic, aggregate_id) DO UPDATE SET version = excluded.version
"""
