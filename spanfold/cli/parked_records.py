"""Which parked records a command is about: named by position, or found by filters; read from spanfold.parked_records."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, astuple, dataclass
from enum import StrEnum
from operator import attrgetter
from typing import Any, Final

import psycopg
from psycopg.rows import class_row

from spanfold.cli.positions import position_of, topic_name
from spanfold.cli.sql import IsoLoader, reading
from spanfold.language.errors import InvalidInput
from spanfold.language.json_values import time_us
from spanfold.language.parking import ParkedReason
from spanfold.language.positions import Position

Connection = psycopg.Connection[Any]


class State(StrEnum):
    """What became of a record that was parked."""

    PARKED = "parked"
    RETRIED = "retried"
    DISCARDED = "discarded"
    ERASED = "erased"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class ParkedRecord:
    """A row of spanfold.parked_records but for its bytes; times are ISO 8601 in UTC. Nothing names an erased one."""

    topic: str
    partition: int
    kafka_offset: int
    reason: str
    detail: str
    event_id: str | None
    event_type: str
    aggregate_id: str | None
    occurred_at: str
    log_time: str
    state: str
    settled_offset: int | None
    last_tried_offset: int | None
    payload_bytes: int

    @property
    def position(self) -> Position:
        return Position(self.topic, self.partition, self.kafka_offset)

    def as_json(self) -> dict[str, Any]:
        """The columns of the view by their names, and the position as commands take it."""
        return {"position": str(self.position), **asdict(self)}


@dataclass(frozen=True, slots=True)
class Filters:
    """Records that are alike; None is any. `since_us` is the first log time (µs since 1970 UTC), `until_us` the first that
    is too late; of more than `limit` records the newest are meant.
    """

    reason: str | None = None
    topic: str | None = None
    since_us: int | None = None
    until_us: int | None = None
    state: str | None = State.PARKED.value
    aggregate_id: str | None = None
    limit: int | None = None


def filters_of(
    reason: ParkedReason | None,
    topic: str | None,
    since: str | None,
    until: str | None,
    aggregate_id: str | None,
    limit: int | None = None,
    state: State = State.PARKED,
    prefix: str = "",
) -> Filters:
    """The filters that these options say. InvalidInput for a topic that nobody knows, or a time that is none."""
    return Filters(
        reason=reason.value if reason else None,
        topic=topic_name(topic, prefix) if topic else None,
        since_us=time_us(since, "--since") if since else None,
        until_us=time_us(until, "--until") if until else None,
        state=None if state is State.ALL else state.value,
        aggregate_id=aggregate_id,
        limit=limit,
    )


def positions_of(words: Sequence[str], prefix: str = "") -> list[Position]:
    """The positions, each once: TOPIC/PARTITION@OFFSET as often as one likes, or the three words TOPIC PARTITION OFFSET."""
    if len(words) == 3 and all(_NUMBER.fullmatch(word) for word in words[1:]):
        words = [f"{words[0]}/{words[1]}@{words[2]}"]
    return list(dict.fromkeys(_position(word, prefix) for word in words))


def _position(word: str, prefix: str) -> Position:
    position = position_of(word, prefix)
    if position is None:
        raise InvalidInput(
            f"{word!r} is no position: expected spanfold.traces/0@42, or three words: spanfold.traces 0 42"
        )
    return position


_NUMBER: Final = re.compile("[0-9]{1,18}")


@contextmanager
def reader(dsn: str) -> Iterator[Connection]:
    """See `reading`; times are ISO 8601 in UTC."""
    with reading(dsn, application_name="spanfold parked") as connection:
        connection.adapters.register_loader("timestamptz", IsoLoader)
        yield connection


def found(connection: Connection, filters: Filters) -> list[ParkedRecord]:
    """The records that pass, newest last."""
    with connection.cursor(row_factory=class_row(ParkedRecord)) as cursor:
        cursor.execute(FOUND.encode(), asdict(filters))
        return cursor.fetchall()[::-1]


def counted(connection: Connection, filters: Filters) -> list[tuple[str, str, int]]:
    """(topic, reason, how many) of the records that pass, whatever the limit."""
    return connection.execute(COUNTED.encode(), asdict(filters)).fetchall()


def named(connection: Connection, positions: Sequence[Position]) -> list[ParkedRecord]:
    """The records at these positions, in their order. InvalidInput names a position where none was ever parked."""
    with connection.cursor(row_factory=class_row(ParkedRecord)) as cursor:
        columns = [list(map(attrgetter(name), positions)) for name in ("topic", "partition", "offset")]
        cursor.execute(NAMED.encode(), columns)
        rows = {row.position: row for row in cursor}
    missing = [each for each in positions if each not in rows]
    if missing:
        raise InvalidInput(_never_parked(connection, missing))
    return [rows[each] for each in positions]


def _never_parked(connection: Connection, missing: Sequence[Position]) -> str:
    """What is known instead of the first of these positions."""
    first, others = missing[0], len(missing) - 1
    row = connection.execute(VERDICT.encode(), astuple(first)).fetchone()
    if row is None:
        instead = "of a record there nothing is known"
    elif row[0] == "accepted":
        instead = "that record was accepted and folded"
    else:
        instead = f"that record was rejected as {row[0]}, which is for ever"
    more = f", and {others} more" if others else ""
    return f"{first} is not parked{more}: {instead}; `spanfold parked list` shows what is"


_COLUMNS: Final = """topic, partition, kafka_offset, reason, detail, event_id::text AS event_id, event_type, aggregate_id,
       occurred_at, log_time, state, settled_offset, last_tried_offset, coalesce(octet_length(payload), 0) AS payload_bytes"""

_CONDITION: Final = """
 WHERE (%(reason)s::text IS NULL OR reason = %(reason)s)
   AND (%(topic)s::text IS NULL OR topic = %(topic)s)
   AND (%(state)s::text IS NULL OR state = %(state)s)
   AND (%(aggregate_id)s::text IS NULL OR aggregate_id = %(aggregate_id)s)
   AND (%(since_us)s::bigint IS NULL OR log_time >= 'epoch'::timestamptz + %(since_us)s::bigint * interval '1 microsecond')
   AND (%(until_us)s::bigint IS NULL OR log_time < 'epoch'::timestamptz + %(until_us)s::bigint * interval '1 microsecond')
"""

FOUND: Final = f"""
SELECT {_COLUMNS}
  FROM spanfold.parked_records
{_CONDITION}
 ORDER BY log_time DESC, topic DESC, partition DESC, kafka_offset DESC
 LIMIT %(limit)s
"""

COUNTED: Final = f"""
SELECT topic, reason, count(*)
  FROM spanfold.parked_records
{_CONDITION}
 GROUP BY topic, reason
 ORDER BY topic, reason
"""

NAMED: Final = f"""
SELECT {_COLUMNS}
  FROM spanfold.parked_records
  JOIN unnest(%s::text[], %s::integer[], %s::bigint[]) AS named (topic, partition, kafka_offset)
       USING (topic, partition, kafka_offset)
"""

VERDICT: Final = """
SELECT verdict
  FROM spanfold.verdicts
 WHERE topic = %s AND partition = %s AND kafka_offset = %s
"""
