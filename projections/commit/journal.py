"""The journal of a telemetry topic: every accepted record, as it came. It decides what is a duplicate.

One table per topic, range-partitioned by event day, unique on (day, partition, event_id). Days are attached ahead of the
log's own time, outside the batch's transaction, and never because of what an event claims.
"""

from collections.abc import Iterable, Sequence
from datetime import date, timedelta
from typing import Any, Final

from psycopg import Connection, Cursor, errors, sql
from sqlalchemy import (
    TIMESTAMP,
    BigInteger,
    Column,
    Date,
    Index,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    Uuid,
)

from spanfold.language.topics import US_PER_DAY, Topic
from spanfold.postgres.copying import PG_EPOCH_DAYS, PG_EPOCH_US, CopyTarget
from spanfold.projections.commit.cut import heads
from spanfold.projections.commit.verdicts import Judged, Rejection, Verdict

CORE: Final = "spanfold_core"

JOURNAL: Final = "journal"
"""Owner of the checkpoints up to which records have been judged, on every topic; its generation is 0."""

_DAY_AHEAD: Final = 1
_SEEN: Final = Rejection(Verdict.DUPLICATE, "its event id is in the journal")
_EPOCH: Final = date(1970, 1, 1)


def record_columns() -> list[Column[Any]]:
    """What every journal keeps of a record's position, key and headers; new columns for each table."""
    return [
        Column("partition", SmallInteger, nullable=False),
        Column("kafka_offset", BigInteger, nullable=False),
        Column("event_id", Uuid, nullable=False),
        Column("aggregate_id", Text(collation="C"), nullable=False),
        Column("event_type", Text, nullable=False),
        Column("occurred_at", TIMESTAMP(timezone=True), nullable=False),
        Column("log_time", TIMESTAMP(timezone=True), nullable=False),
    ]


def journal_table(topic: Topic) -> Table:
    """The shape of the topic's journal."""
    return Table(
        f"journal_{topic.short_name}",
        MetaData(schema=CORE),
        Column("day", Date, nullable=False),
        *record_columns(),
        Column("payload", LargeBinary),
        Index(f"journal_{topic.short_name}_once", "day", "partition", "event_id", unique=True),
        # looked up by equality alone; a B-tree of random ids costs twice as much to keep
        Index(f"journal_{topic.short_name}_aggregate", "aggregate_id", postgresql_using="hash"),
        postgresql_partition_by="RANGE (day)",
    )


JOURNAL_SELECT: Final = """
SELECT '{topic}'::text AS topic, partition::integer AS partition, kafka_offset, kafka_offset + 1 AS version,
       event_id, event_type, aggregate_id, occurred_at, log_time, payload
  FROM {table}"""


def days_lock(topic: Topic) -> sql.Composed:
    """The statement after which a transaction is alone with the days of this topic's journal."""
    return sql.SQL("SELECT pg_advisory_xact_lock(hashtext({}))").format(sql.Literal(journal_table(topic).name))


GONE: Final = f"SELECT max(kept_from_day) FROM {CORE}.journal_retention WHERE topic = %s"
"""Days before this one have been let go of."""


class Journal:
    """The journal of one telemetry topic, as `Arbiter`."""

    select = JOURNAL_SELECT

    def __init__(self, topic: Topic) -> None:
        self.topic = topic
        self.table = journal_table(topic)
        self._target = CopyTarget(self.table)
        self._days: set[int] = set()

    def prepare(self, connection: Connection[Any], log_times_ms: Sequence[int]) -> None:
        """Attach the days that records of these log times may belong to, and one more; commits. Mostly does nothing."""
        if not log_times_ms:
            return
        first = min(log_times_ms) * 1000 // US_PER_DAY - self.topic.window_days
        last = max(log_times_ms) * 1000 // US_PER_DAY + self.topic.future_days + _DAY_AHEAD
        if self._days.issuperset(range(first, last + 1 - _DAY_AHEAD)):
            return
        missing = [day for day in range(first, last + 1) if day not in self._days]
        with connection.transaction():
            # one at a time: two workers may start on the same day
            connection.execute(days_lock(self.topic))
            ((gone,),) = connection.execute(GONE, (self.topic.name,)).fetchall()
            for day in missing:
                # a batch from long before, which is fenced, needs no day
                if gone is None or _EPOCH + timedelta(days=day) >= gone:
                    self._attach(connection, _EPOCH + timedelta(days=day))
        self._days.update(missing)

    def _attach(self, connection: Connection[Any], day: date) -> None:
        name = f"{self.table.name}_{day:%Y%m%d}"
        if connection.execute("SELECT to_regclass(%s)", (f"{CORE}.{name}",)).fetchone() != (None,):
            return
        parent, leaf = sql.Identifier(CORE, self.table.name), sql.Identifier(CORE, name)
        # created apart and attached: ATTACH does not wait for readers and writers of the other days
        connection.execute(sql.SQL("CREATE TABLE {} (LIKE {} INCLUDING ALL)").format(leaf, parent))
        connection.execute(
            sql.SQL("ALTER TABLE {} ATTACH PARTITION {} FOR VALUES FROM ({}) TO ({})").format(
                parent, leaf, day, day + timedelta(days=1)
            )
        )

    def decide(self, cursor: Cursor[Any], judged: Judged, indexes: Sequence[int]) -> dict[int, Rejection]:
        """Accept these records of the batch in offset order, but for the duplicates among them, which are returned."""
        return dict.fromkeys(sorted(self._accept(cursor, judged, indexes)), _SEEN)

    def _accept(self, cursor: Cursor[Any], judged: Judged, indexes: Sequence[int]) -> set[int]:
        ids = judged.event_ids
        if len({ids[index] for index in indexes}) == len(indexes):
            try:
                with cursor.connection.transaction():
                    self._target.copy(cursor, CORE, self._rows(judged, indexes))
                return set()
            except errors.UniqueViolation:
                pass
        return self._accept_new(cursor, judged, indexes)

    def _accept_new(self, cursor: Cursor[Any], judged: Judged, indexes: Sequence[int]) -> set[int]:
        incoming = self._target.copy_incoming(cursor, CORE, self._rows(judged, indexes))
        cursor.execute(
            sql.SQL(
                "INSERT INTO {} SELECT * FROM {} ORDER BY kafka_offset ON CONFLICT DO NOTHING RETURNING kafka_offset"
            ).format(sql.Identifier(CORE, self.table.name), incoming)
        )
        accepted = {offset for (offset,) in cursor.fetchall()}
        return {index for index in indexes if judged.batch.offsets[index] not in accepted}

    def _rows(self, judged: Judged, indexes: Iterable[int]) -> Iterable[tuple[Any, ...]]:
        batch, partition = judged.batch, judged.batch.partition
        offsets, log_times, values = batch.offsets, batch.log_times_ms, heads(batch.values)
        ids, keys, types, times = (
            judged.event_ids,
            judged.aggregate_ids,
            judged.event_types,
            judged.occurred_at,
        )
        return (
            (
                times[i] // US_PER_DAY - PG_EPOCH_DAYS, partition, offsets[i], ids[i], keys[i], types[i],
                times[i] - PG_EPOCH_US, log_times[i] * 1000 - PG_EPOCH_US, values[i],
            )
            for i in indexes
        )  # fmt: skip
