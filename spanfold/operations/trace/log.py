"""What the log has of one trace, as the journal keeps it: every record as it came, whatever became of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from psycopg.rows import class_row

from spanfold.language.json_values import time_text, time_us
from spanfold.language.positions import Position
from spanfold.language.topics import TRACES
from spanfold.operations.reading import reading

ACCEPTED: Final = "accepted"


@dataclass(frozen=True, slots=True)
class LoggedRecord:
    """One record. Times in µs since 1970 UTC; `occurred_at` is None where its header can't be told.

    `detail` says why it was rejected. `reason` and `reason_detail` say why it was parked; `settled_offset` is the offset of the
    fact that retried or discarded it, as `settled_as` says. A duplicate's payload is that of the first one.
    """

    partition: int
    kafka_offset: int
    log_time: int
    event_id: str
    event_type: str
    occurred_at: int | None
    verdict: str
    detail: str | None
    payload: bytes | None
    reason: str | None
    reason_detail: str | None
    settled_as: str | None
    settled_offset: int | None

    @property
    def position(self) -> Position:
        return Position(TRACES.name, self.partition, self.kafka_offset)


@dataclass(frozen=True, slots=True)
class AsOf:
    """How much of the log is looked at: what is in it before a time (µs since 1970 UTC), or before an offset."""

    before_us: int | None = None
    before_offset: int | None = None

    def __str__(self) -> str:
        if self.before_us is not None:
            return f"before {time_text(self.before_us)}"
        return "at all" if self.before_offset is None else f"before offset {self.before_offset}"


def as_of(text: str | None) -> AsOf:
    """An offset, or a time in RFC 3339. InvalidInput when it is neither."""
    if text is None:
        return AsOf()
    return AsOf(before_offset=int(text)) if text.isdecimal() else AsOf(before_us=time_us(text, "--as-of"))


def before(records: Sequence[LoggedRecord], limit: AsOf) -> list[LoggedRecord]:
    """Those that the log had then. An offset is one of the partition that the trace's accepted records are in."""
    if limit.before_us is not None:
        return [record for record in records if record.log_time < limit.before_us]
    if limit.before_offset is None:
        return list(records)
    home = {record.partition for record in records if record.verdict == ACCEPTED}
    return [
        record
        for record in records
        if record.kafka_offset < limit.before_offset and (record.partition in home or not home)
    ]


def records_of(dsn: str, trace_id: str) -> list[LoggedRecord]:
    """Every record of the trace that has been judged, in log order. Misconfigured when the database knows nothing of
    verdicts, StoreUnavailable when Postgres does not answer.
    """
    about = {"topic": TRACES.name, "trace_id": trace_id}
    with reading(dsn, "spanfold trace") as connection, connection.cursor(row_factory=class_row(LoggedRecord)) as cursor:
        return cursor.execute(RECORDS.encode(), about).fetchall()


def similar(dsn: str, trace_id: str) -> list[str]:
    """Ids of some traces that may have been meant: written otherwise, or beginning so."""
    bare = trace_id.strip().lower()
    about = {"ids": [bare, bare.replace("-", "")], "begin": bare, "end": bare + "\U0010ffff"}
    with reading(dsn, "spanfold trace") as connection:
        return [trace_id for (trace_id,) in connection.execute(SIMILAR, about)]


RECORDS: Final = f"""
SELECT j.partition, j.kafka_offset, (extract(epoch FROM j.log_time) * 1000000)::bigint AS log_time,
       j.event_id::text AS event_id, j.event_type, (extract(epoch FROM j.occurred_at) * 1000000)::bigint AS occurred_at,
       '{ACCEPTED}' AS verdict, NULL AS detail, j.payload,
       p.reason, p.detail AS reason_detail, nullif(p.state, 'parked') AS settled_as, p.settled_offset
  FROM spanfold.journal j
  LEFT JOIN spanfold.parked_records p
    ON (p.topic, p.partition, p.kafka_offset) = (j.topic, j.partition, j.kafka_offset)
 WHERE j.topic = %(topic)s AND j.aggregate_id = %(trace_id)s
 UNION ALL
SELECT partition, kafka_offset, (extract(epoch FROM log_time) * 1000000)::bigint,
       event_id::text, event_type, (extract(epoch FROM occurred_at) * 1000000)::bigint,
       verdict, detail, NULL, NULL, NULL, NULL, NULL
  FROM spanfold.verdicts
 WHERE topic = %(topic)s AND aggregate_id = %(trace_id)s AND verdict <> '{ACCEPTED}'
 ORDER BY log_time, partition, kafka_offset
"""

SIMILAR: Final = """
SELECT trace_id FROM spanfold.traces
 WHERE trace_id = ANY (%(ids)s) OR (trace_id >= %(begin)s AND trace_id < %(end)s)
 ORDER BY trace_id
 LIMIT 3
"""
