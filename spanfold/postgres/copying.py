"""COPY of many rows in Postgres' binary format, the fastest way in.

Rows are tuples in the table's column order, already in wire terms: times as µs since 1970 UTC shifted by `pg_time`, ids as
16 bytes, jsonb as `spanfold.projections.commit.reading` makes it, arrays as `float8_array` and `int8_array` make them.
"""

import struct
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, Final

from psycopg import Cursor, sql
from psycopg.copy import LibpqWriter
from sqlalchemy import Table, types
from sqlalchemy.dialects import postgresql

PG_EPOCH_US: Final = 946_684_800_000_000
"""2000-01-01, where Postgres starts to count, in µs since 1970."""

PG_EPOCH_DAYS: Final = 10_957
"""2000-01-01 in days since 1970."""

_FLUSH_BYTES: Final = 64 * 1024 * 1024


class BucketCounts(types.UserDefinedType[Any]):
    """The composite type spanfold.bucket_counts."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        return "spanfold.bucket_counts"


_WIRE_TYPES: Final[dict[type[types.TypeEngine[Any]], str]] = {
    types.Text: "text",
    types.SmallInteger: "int2",
    types.Integer: "int4",
    types.BigInteger: "int8",
    types.Boolean: "bool",
    types.Date: "int4",
    types.TIMESTAMP: "int8",
    types.Numeric: "numeric",
    types.Uuid: "bytea",
    types.LargeBinary: "bytea",
    postgresql.JSONB: "bytea",
    postgresql.DOUBLE_PRECISION: "float8",
    postgresql.ARRAY: "bytea",
    BucketCounts: "bytea",
}

_FLOAT8_OID: Final = 701
_INT8_OID: Final = 20
_INT8_ARRAY_OID: Final = 1016
_INT2_OID: Final = 21
_INT2_ARRAY_OID: Final = 1005


def wire_types(table: Table) -> list[str]:
    """The psycopg type name that writes each column's binary form."""
    return [_WIRE_TYPES[type(column.type)] for column in table.columns]


def float8_array(values: Sequence[float]) -> bytes:
    """The values as Postgres' double precision[] takes them."""
    return _array(_FLOAT8_OID, "d", values)


def int8_array(values: Sequence[int]) -> bytes:
    """The values as Postgres' bigint[] takes them."""
    return _array(_INT8_OID, "q", values)


def bucket_counts(buckets: Sequence[int], counts: Sequence[int]) -> bytes:
    """A spanfold.bucket_counts in binary: the number of fields, type and length of each (record_recv)."""
    one, other = _array(_INT2_OID, "h", buckets), _array(_INT8_OID, "q", counts)
    return b"".join(
        (
            struct.pack(">iIi", 2, _INT2_ARRAY_OID, len(one)), one,
            struct.pack(">Ii", _INT8_ARRAY_OID, len(other)), other,
        )
    )  # fmt: skip


def _array(oid: int, code: str, values: Sequence[float]) -> bytes:
    """Dimensions, no nulls, the elements' type; length and lower bound; length and bytes of each element (array_recv)."""
    if not values:
        return struct.pack(">3i", 0, 0, oid)
    length = len(values)
    elements: list[float] = [struct.calcsize(code)] * (2 * length)
    elements[1::2] = values
    return _array_layout(code, length).pack(1, 0, oid, length, 1, *elements)


@lru_cache(maxsize=1024)
def _array_layout(code: str, length: int) -> struct.Struct:
    return struct.Struct(f">5i{('i' + code) * length}")


def copy_into(
    cursor: Cursor[Any],
    target: sql.Composable,
    columns: Sequence[str],
    kinds: Sequence[str],
    rows: Iterable[Sequence[Any]],
) -> None:
    """COPY the rows into `target`; any refusal (a duplicate key, a value out of range) refuses them all."""
    names = sql.SQL(", ").join(map(sql.Identifier, columns))
    statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)").format(target, names)
    # the socket takes what it can and libpq keeps the rest: waiting for each block would hand the interpreter over to the
    # thread that decodes, dozens of times a batch
    writer = LibpqWriter(cursor, flush_threshold=_FLUSH_BYTES)
    with cursor.copy(statement, writer=writer) as copy:
        copy.set_types(kinds)
        write = copy.write_row
        for row in rows:
            write(row)


class CopyTarget:
    """One table definition, prepared for COPY: straight into a schema's table, or into its temporary twin."""

    def __init__(self, table: Table) -> None:
        self.name = table.name
        self.columns = [column.name for column in table.columns]
        self._kinds = wire_types(table)

    def copy(self, cursor: Cursor[Any], schema: str, rows: Iterable[Sequence[Any]]) -> None:
        """COPY straight into `schema`'s table."""
        copy_into(cursor, sql.Identifier(schema, self.name), self.columns, self._kinds, rows)

    def copy_incoming(
        self, cursor: Cursor[Any], schema: str, rows: Iterable[Sequence[Any]], anew: bool = False
    ) -> sql.Identifier:
        """COPY into a temporary table of the same shape, emptied at commit; returns its name. Once in a transaction, or `anew`:
        then what was copied into it before goes.
        """
        incoming = sql.Identifier(f"incoming_{schema}_{self.name}"[:63])
        cursor.execute(
            sql.SQL("CREATE TEMPORARY TABLE IF NOT EXISTS {} (LIKE {}) ON COMMIT DELETE ROWS").format(
                incoming, sql.Identifier(schema, self.name)
            )
        )
        if anew:
            cursor.execute(sql.SQL("DELETE FROM {}").format(incoming))
        copy_into(cursor, incoming, self.columns, self._kinds, rows)
        return incoming
