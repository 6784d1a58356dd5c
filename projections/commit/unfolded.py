"""Writes what was not folded: rejected records (a verdict, for ever) and parked ones (accepted, but unreadable here).

Both keep the position and the reason; all but duplicates keep their bytes too: a duplicate's are in the journal. Of bytes beyond
a limit only size, hash and beginning are kept (projections/commit/cut.py), of erased traces only the position
(projections/commit/erasure.py).
"""

from collections.abc import Container, Iterator, Mapping
from typing import Any, Final

import orjson
from psycopg import Cursor
from sqlalchemy import TIMESTAMP, BigInteger, Column, Integer, LargeBinary, MetaData, Table, Text, Uuid
from sqlalchemy.dialects.postgresql import JSONB

from spanfold.language.errors import PoisonRecord
from spanfold.postgres.copying import PG_EPOCH_US, CopyTarget
from spanfold.postgres.texts import storable
from spanfold.projections.commit.cut import CutHeaders, CutValue, RecordHeaders, cut_key, head, within_limits
from spanfold.projections.commit.erasure import NAMELESS
from spanfold.projections.commit.journal import CORE
from spanfold.projections.commit.reading import JSONB_VERSION, MIN_TIME_US
from spanfold.projections.commit.verdicts import Judged, Rejection, Verdict


def _table(name: str, why: str) -> Table:
    return Table(
        name,
        MetaData(schema=CORE),
        Column("topic", Text),
        Column("partition", Integer),
        Column("kafka_offset", BigInteger),
        Column(why, Text),
        Column("detail", Text),
        Column("event_id", Uuid),
        Column("event_type", Text),
        Column("aggregate_id", Text),
        Column("occurred_at", TIMESTAMP(timezone=True)),
        Column("log_time", TIMESTAMP(timezone=True)),
        Column("key", LargeBinary),
        Column("headers", JSONB),
        Column("payload", LargeBinary),
        Column("value_bytes", BigInteger),
        Column("value_sha256", LargeBinary),
    )


_REJECTED: Final = CopyTarget(_table("rejected", "verdict"))
_PARKED: Final = CopyTarget(_table("parked", "reason"))

NO_BYTES: Final = (None, None, None, None, None)


def write_rejected(
    cursor: Cursor[Any], judged: Judged, rejections: Mapping[int, Rejection], nameless: Container[bytes | None] = ()
) -> None:
    """Keep the rejected records of the batch; of those with these keys only that they were there."""
    _REJECTED.copy(cursor, CORE, _rejected_rows(judged, rejections, nameless))


def write_parked(cursor: Cursor[Any], judged: Judged, parked: Mapping[int, PoisonRecord]) -> None:
    """Keep the accepted records of the batch that could not be folded."""
    _PARKED.copy(
        cursor,
        CORE,
        (
            (
                *_position(judged, index),
                poison.reason,
                storable(poison.detail),
                *_parked_headers(judged, index),
                *_bytes(judged, index),
            )
            for index, poison in parked.items()
        ),
    )


def _rejected_rows(
    judged: Judged, rejections: Mapping[int, Rejection], nameless: Container[bytes | None]
) -> Iterator[tuple[Any, ...]]:
    for index, rejection in rejections.items():
        columns = _header_columns(judged, index)
        raw: tuple[Any, ...] = _bytes(judged, index)
        detail = storable(rejection.detail)
        match rejection.verdict:
            case Verdict.MALFORMED:
                columns = (None, None, None, None, columns[-1])
            case Verdict.DUPLICATE:
                raw = NO_BYTES
        if judged.batch.keys[index] in nameless:
            detail, raw = NAMELESS, NO_BYTES
            columns = (None, columns[1], None, *columns[3:])
        yield (*_position(judged, index), rejection.verdict.value, detail, *columns, *raw)


def _position(judged: Judged, index: int) -> tuple[Any, ...]:
    batch = judged.batch
    return (batch.topic.name, batch.partition, batch.offsets[index])


def _header_columns(judged: Judged, index: int) -> tuple[Any, ...]:
    occurred_at = judged.occurred_at[index]
    return (
        judged.event_ids[index],
        judged.event_types[index],
        judged.aggregate_ids[index],
        # an expired record may claim any time, also one that Postgres lacks; its headers keep what it claims
        None if occurred_at < MIN_TIME_US else occurred_at - PG_EPOCH_US,
        judged.batch.log_times_ms[index] * 1000 - PG_EPOCH_US,
    )


def _parked_headers(judged: Judged, index: int) -> tuple[Any, ...]:
    """Where the event time is one that Postgres lacks, its first instant, as in the journal."""
    event_id, event_type, aggregate_id, occurred_at, log_time = _header_columns(judged, index)
    return (
        event_id,
        event_type,
        aggregate_id,
        MIN_TIME_US - PG_EPOCH_US if occurred_at is None else occurred_at,
        log_time,
    )


def _bytes(judged: Judged, index: int) -> tuple[Any, ...]:
    """Key, headers and value; of a value that is cut its size and hash too."""
    batch = judged.batch
    value = batch.values[index]
    cut = (value.size, value.sha256) if isinstance(value, CutValue) else (None, None)
    return (cut_key(batch.keys[index]), headers_json(batch.headers[index]), head(value), *cut)


def headers_json(headers: RecordHeaders) -> bytes | None:
    """Headers as jsonb bytes: pairs of name and text, or {"hex": …} where one is not text that jsonb can hold. None for more than
    a record may have.
    """
    if isinstance(within_limits(headers), CutHeaders):
        return None
    pairs = [[_header_text(name.encode("utf-8", "surrogateescape")), _header_text(value)] for name, value in headers]
    return JSONB_VERSION + orjson.dumps(pairs)


def _header_text(value: bytes | None) -> Any:
    if value is None:
        return None
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return {"hex": value.hex()}
    return {"hex": value.hex()} if "\0" in text else text
