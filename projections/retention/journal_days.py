"""Deletes days of a telemetry topic's journal, while workers write the others.

What is to go is recorded first, in one transaction: from then on reads from below it answer Compacted, and no worker attaches
these days again. Then each day is detached and dropped; a process that is killed in between leaves that to the next one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

from psycopg import Connection, errors, sql

from spanfold.language.errors import StoreUnavailable
from spanfold.language.topics import Topic
from spanfold.postgres.retries import while_locked
from spanfold.projections.commit.journal import CORE, days_lock, journal_table

LOCK_TIMEOUT: Final = "200ms"
"""Nobody waits behind us for longer. What is waited for without a lock, old transactions, may take PATIENCE_S."""

PATIENCE_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class JournalDay:
    """A day of a journal. `attached`: the journal shows it. `leaving`: a process was killed while detaching it."""

    day: date
    table: str
    attached: bool
    leaving: bool
    bytes: int


def journal_days(connection: Connection[Any], topic: Topic) -> list[JournalDay]:
    """The days that have a table, oldest first."""
    rows = connection.execute(DAYS, (f"^{journal_table(topic).name}_[0-9]{{8}}$",))
    return [JournalDay(date.fromisoformat(name[-8:]), name, *rest) for name, *rest in rows]


def kept_from(connection: Connection[Any], topic: Topic) -> date | None:
    """The first day that is kept; None when no day has ever been deleted."""
    ((day,),) = connection.execute(KEPT_FROM, (topic.name,)).fetchall()
    return day if isinstance(day, date) else None


def ends_of(connection: Connection[Any], day: JournalDay) -> tuple[int, dict[int, int]]:
    """How many records the day has, and by partition the offset after its last one."""
    statement = sql.SQL("SELECT partition, count(*), max(kafka_offset) + 1 FROM {} GROUP BY 1")
    rows = connection.execute(statement.format(sql.Identifier(CORE, day.table))).fetchall()
    return sum(count for _, count, _ in rows), {partition: end for partition, _, end in rows}


def remember(connection: Connection[Any], topic: Topic, before: date, ends: Mapping[int, int]) -> None:
    """Record that days before this one are gone, and what they had below these offsets."""
    with connection.transaction():
        connection.execute(days_lock(topic))
        with connection.cursor() as cursor:
            cursor.execute(PARTITIONS, (topic.name,))
            ((partitions,),) = cursor.fetchall()
            rows = [(topic.name, partition, ends.get(partition, 0), before) for partition in range(partitions)]
            cursor.executemany(REMEMBER, rows)


def drop(connection: Connection[Any], topic: Topic, days: Sequence[JournalDay]) -> None:
    """Drop the tables of these days. StoreUnavailable when others keep one for too long: then the next call drops it."""
    connection.execute(f"SET lock_timeout = '{LOCK_TIMEOUT}'".encode())
    try:
        for day in days:
            if day.attached:
                _patiently(connection, topic, day, _detach)
            _patiently(connection, topic, day, _drop)
    finally:
        connection.execute("RESET lock_timeout")


def _patiently(connection: Connection[Any], topic: Topic, day: JournalDay, step: Any) -> None:
    try:
        while_locked(PATIENCE_S)(step, connection, topic, day)
    except (errors.LockNotAvailable, errors.DeadlockDetected) as error:
        raise StoreUnavailable(
            f"{CORE}.{day.table} is still held by open transactions after {PATIENCE_S:.0f} s (pg_stat_activity shows whose): "
            "run again to drop it"
        ) from error


def _detach(connection: Connection[Any], topic: Topic, day: JournalDay) -> None:
    """Detach the day. Nobody is kept from the other days: it waits for older transactions, and holds no lock meanwhile."""
    row = connection.execute(LEAVING, (f"{CORE}.{day.table}",)).fetchone()
    if row is None:
        return
    how = sql.SQL("FINALIZE" if row[0] else "CONCURRENTLY")
    parent, leaf = sql.Identifier(CORE, journal_table(topic).name), sql.Identifier(CORE, day.table)
    connection.execute(sql.SQL("ALTER TABLE {} DETACH PARTITION {} {}").format(parent, leaf, how))


def _drop(connection: Connection[Any], topic: Topic, day: JournalDay) -> None:
    connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(sql.Identifier(CORE, day.table)))


DAYS: Final = f"""
SELECT c.relname, i.inhrelid IS NOT NULL, coalesce(i.inhdetachpending, false), pg_total_relation_size(c.oid)
  FROM pg_class c
  LEFT JOIN pg_inherits i ON i.inhrelid = c.oid
 WHERE c.relnamespace = '{CORE}'::regnamespace AND c.relkind = 'r' AND c.relname ~ %s
 ORDER BY c.relname
"""

KEPT_FROM: Final = f"SELECT max(kept_from_day) FROM {CORE}.journal_retention WHERE topic = %s"

PARTITIONS: Final = f"SELECT partitions FROM {CORE}.topics WHERE topic = %s"

LEAVING: Final = "SELECT inhdetachpending FROM pg_inherits WHERE inhrelid = to_regclass(%s)"

REMEMBER: Final = f"""
INSERT INTO {CORE}.journal_retention AS l (topic, partition, complete_from_offset, kept_from_day) VALUES (%s, %s, %s, %s)
ON CONFLICT (topic, partition) DO UPDATE
   SET complete_from_offset = greatest(l.complete_from_offset, excluded.complete_from_offset),
       kept_from_day = greatest(l.kept_from_day, excluded.kept_from_day)
"""
