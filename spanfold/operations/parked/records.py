"""Which records are parked: named by position, or chosen by filters; read from spanfold.parked_records."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from enum import StrEnum
from operator import attrgetter
from typing import Any, Final

import psycopg
from psycopg import Cursor
from psycopg.rows import dict_row

from spanfold.language.errors import NotFound
from spanfold.language.json_values import time_us
from spanfold.language.parking import ParkedReason
from spanfold.language.positions import Position
from spanfold.operations.installation import Installation
from spanfold.operations.positions import topic_name
from spanfold.operations.reading import IsoLoader, reading

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
    """A row of spanfold.parked_records but for its bytes, and its position as operations take it; times are ISO 8601 in UTC.
    Nothing names an erased one. `payload_bytes` of the value are kept; `value_bytes` is its size if that is only the beginning.
    """

    position: Position
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
    value_bytes: int | None


@dataclass(frozen=True, slots=True)
class ParkedList:
    """Some of the records that pass the filters, the newest last; `total` is how many pass."""

    records: Sequence[ParkedRecord]
    total: int


@dataclass(frozen=True, slots=True)
class ParkedCount:
    """How many records of a topic are parked for a reason."""

    topic: str
    reason: str
    records: int


@dataclass(frozen=True, slots=True)
class Filters:
    """Records that are alike; None is any. `since` is the first log time, `until` the first that is too late, both in RFC 3339;
    `topic` may be short: traces.
    """

    reason: ParkedReason | None = None
    topic: str | None = None
    since: str | None = None
    until: str | None = None
    aggregate_id: str | None = None
    state: State = State.PARKED

    def parameters(self, prefix: str) -> dict[str, Any]:
        """The parameters of the queries. InvalidInput for a topic that does not exist, or a time that is none."""
        return {
            "reason": self.reason.value if self.reason else None,
            "topic": topic_name(self.topic, prefix) if self.topic else None,
            "since_us": time_us(self.since, "--since") if self.since else None,
            "until_us": time_us(self.until, "--until") if self.until else None,
            "state": None if self.state is State.ALL else self.state.value,
            "aggregate_id": self.aggregate_id,
        }


NO_FILTERS: Final = Filters()


def list_parked(installation: Installation, filters: Filters = NO_FILTERS, limit: int | None = 100) -> ParkedList:
    """The records that pass the filters; of more than `limit` the newest. InvalidInput, see Filters.parameters."""
    parameters = filters.parameters(installation.settings.topic_prefix)
    with reader(installation.dsn) as connection:
        counts = _counts(connection, parameters)
        return ParkedList(matching(connection, parameters, limit), sum(count.records for count in counts))


def count_parked(installation: Installation, filters: Filters = NO_FILTERS) -> Sequence[ParkedCount]:
    """How many records pass the filters, by topic and reason."""
    with reader(installation.dsn) as connection:
        return _counts(connection, filters.parameters(installation.settings.topic_prefix))


@contextmanager
def reader(dsn: str) -> Iterator[Connection]:
    """A read-only session, see `reading`; times are ISO 8601 in UTC."""
    with reading(dsn, "spanfold parked") as connection:
        connection.adapters.register_loader("timestamptz", IsoLoader)
        yield connection


def matching(connection: Connection, parameters: dict[str, Any], limit: int | None) -> list[ParkedRecord]:
    """The records that pass, newest last."""
    with connection.cursor(row_factory=_parked_record) as cursor:
        return cursor.execute(MATCHING.encode(), parameters | {"limit": limit}).fetchall()[::-1]


def at_positions(connection: Connection, positions: Sequence[Position]) -> list[ParkedRecord]:
    """The records at these positions, in their order. NotFound names a position where none was ever parked."""
    with connection.cursor(row_factory=_parked_record) as cursor:
        columns = [list(map(attrgetter(name), positions)) for name in ("topic", "partition", "offset")]
        rows = {row.position: row for row in cursor.execute(AT_POSITIONS.encode(), columns)}
    missing = [position for position in positions if position not in rows]
    if missing:
        raise NotFound(_never_parked(connection, missing))
    return [rows[position] for position in positions]


def _counts(connection: Connection, parameters: dict[str, Any]) -> list[ParkedCount]:
    return [ParkedCount(*row) for row in connection.execute(COUNTED.encode(), parameters)]


def _parked_record(cursor: "Cursor[Any]") -> Any:
    as_dict = dict_row(cursor)

    def record(values: Sequence[Any]) -> ParkedRecord:
        row = as_dict(values)
        return ParkedRecord(Position(row["topic"], row["partition"], row["kafka_offset"]), **row)

    return record


def _never_parked(connection: Connection, missing: Sequence[Position]) -> str:
    """What is known instead of the first of these positions."""
    first, others = missing[0], len(missing) - 1
    row = connection.execute(VERDICT.encode(), astuple(first)).fetchone()
    if row is None:
        instead = "no record there is known"
    elif row[0] == "accepted":
        instead = "that record was accepted and folded"
    else:
        instead = f"that record was rejected as {row[0]}; rejected records can't be retried"
    more = f", and {others} more" if others else ""
    return f"{first} is not parked{more}: {instead}. `spanfold parked list` shows the parked records"


_COLUMNS: Final = """topic, partition, kafka_offset, reason, detail, event_id::text AS event_id, event_type, aggregate_id,
       occurred_at, log_time, state, settled_offset, last_tried_offset, coalesce(octet_length(payload), 0) AS payload_bytes,
       value_bytes"""

_CONDITION: Final = """
 WHERE (%(reason)s::text IS NULL OR reason = %(reason)s)
   AND (%(topic)s::text IS NULL OR topic = %(topic)s)
   AND (%(state)s::text IS NULL OR state = %(state)s)
   AND (%(aggregate_id)s::text IS NULL OR aggregate_id = %(aggregate_id)s)
   AND (%(since_us)s::bigint IS NULL OR log_time >= 'epoch'::timestamptz + %(since_us)s::bigint * interval '1 microsecond')
   AND (%(until_us)s::bigint IS NULL OR log_time < 'epoch'::timestamptz + %(until_us)s::bigint * interval '1 microsecond')
"""

MATCHING: Final = f"""
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

AT_POSITIONS: Final = f"""
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
