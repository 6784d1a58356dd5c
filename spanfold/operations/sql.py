"""Queries of the read models: read-only, one statement at a time."""

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

import orjson
import psycopg
from psycopg import Cursor

from spanfold.language.errors import InvalidInput
from spanfold.language.json_values import decimal_text
from spanfold.operations.installation import Installation
from spanfold.operations.postgres_errors import statement_error
from spanfold.operations.reading import DocumentLoader, FiniteLoader, IsoLoader, TextLoader
from spanfold.postgres.connections import connect
from spanfold.postgres.sessions import READ_ONLY

NUMERIC_OIDS: Final = {
    psycopg.adapters.types[name].oid for name in ("int2", "int4", "int8", "float4", "float8", "numeric")
}

_LONG_NUMBER: Final = re.compile(rb"\d{20}")
"""What a double beyond 64 bits, or close to 0, is in jsonb and numeric."""


@dataclass(frozen=True, slots=True)
class TextTable:
    """The rows of a statement as Postgres writes them, but for long numbers in jsonb and numeric: 1e+20. `numeric` are the
    indexes of columns of numbers; `status` is what Postgres calls the outcome. Without columns the statement returns no rows.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str | None]]
    numeric: frozenset[int]
    status: str


def query_table(installation: Installation, statement: str) -> TextTable:
    """All rows of the statement, as text. InvalidInput says what is wrong with it, and where."""
    with _session(installation, statement) as cursor:
        _execute(cursor, statement)
        result, description = cursor.pgresult, cursor.description
        if result is None or description is None:
            return TextTable((), (), frozenset(), cursor.statusmessage or "")
        columns = range(result.nfields)
        show = [_SHOWN_AS.get(column.type_code, _text) for column in description]
        rows = [[show[column](result.get_value(row, column)) for column in columns] for row in range(result.ntuples)]
        numeric = frozenset(index for index, column in enumerate(description) if column.type_code in NUMERIC_OIDS)
        return TextTable([column.name for column in description], rows, numeric, cursor.statusmessage or "")


def query_rows(installation: Installation, statement: str) -> Iterator[dict[str, Any]]:
    """The rows of the statement by column, with values as JSON has them: times as ISO 8601, numbers that JSON lacks as text."""
    with _session(installation, statement) as cursor:
        for kind in ("timestamptz", "timestamp"):
            cursor.adapters.register_loader(kind, IsoLoader)
        for kind in ("date", "time", "timetz", "interval"):
            cursor.adapters.register_loader(kind, TextLoader)
        for kind in ("float4", "float8"):
            cursor.adapters.register_loader(kind, FiniteLoader)
        for kind in ("json", "jsonb"):
            cursor.adapters.register_loader(kind, DocumentLoader)
        _execute(cursor, statement)
        names = _distinct([column.name for column in cursor.description or ()])
        for row in cursor if names else ():
            yield dict(zip(names, row, strict=True))


@contextmanager
def _session(installation: Installation, statement: str) -> Iterator[Cursor[Any]]:
    try:
        with (
            connect(installation.dsn, "spanfold sql", READ_ONLY, autocommit=False) as connection,
            connection.cursor() as cursor,
        ):
            yield cursor
    except psycopg.Error as error:
        raise statement_error(error, statement) from error


def _distinct(names: list[str]) -> list[str]:
    """The names, where a join or an expression repeats one with its count: `trace_id`, `trace_id_2`."""
    seen: Counter[str] = Counter()
    distinct = []
    for name in names:
        seen[name] += 1
        distinct.append(name if seen[name] == 1 else f"{name}_{seen[name]}")
    return distinct


def _execute(cursor: Cursor[Any], statement: str) -> None:
    """Run the one statement. InvalidInput when there is none, or more."""
    cursor.execute(statement.encode())
    if cursor.nextset():
        raise InvalidInput("the query has several statements; pass one at a time")
    if cursor.statusmessage is None:
        raise InvalidInput("the query is empty")


def _document(value: bytes | None) -> str | None:
    """A jsonb value in Postgres' spacing."""
    if value is None or _LONG_NUMBER.search(value) is None:
        return _text(value)
    try:
        return json.dumps(orjson.loads(value), ensure_ascii=False)
    except orjson.JSONDecodeError:
        return _text(value)


def _decimal(value: bytes | None) -> str | None:
    return (
        _text(value) if value is None or _LONG_NUMBER.search(value) is None else decimal_text(Decimal(value.decode()))
    )


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode(errors="replace")


_SHOWN_AS: Final = {
    psycopg.adapters.types[name].oid: shown
    for name, shown in {"json": _document, "jsonb": _document, "numeric": _decimal}.items()
}
"""How values of these types are written, by the type's oid."""
