"""`spanfold sql`: the read models in a terminal, a pipe or a script."""

import os
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Final

import psycopg
import typer
from psycopg import Cursor
from psycopg.abc import Buffer
from psycopg.adapt import Loader
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from spanfold.cli.output import console, notices, print_json_rows, table
from spanfold.cli.stack import AsJson, Home, chosen_settings, named_postgres, running_settings, unreachable_postgres
from spanfold.embedded import read_state
from spanfold.language.errors import InvalidInput, Misconfigured, StoreUnavailable
from spanfold.language.settings import Settings

OPTIONS: Final = "-c search_path=spanfold,public -c default_transaction_read_only=on -c timezone=UTC -c datestyle=ISO"
CANCELLED: Final = 130
NUMERIC_OIDS: Final = {
    psycopg.adapters.types[name].oid for name in ("int2", "int4", "int8", "float4", "float8", "numeric")
}


def sql(
    query: Annotated[str | None, typer.Argument(help="One statement; - reads it from standard input.")] = None,
    as_json: AsJson = False,
    home: Home = None,
) -> None:
    """Query the read models; without a query, open psql.

    Tables need no schema: `traces` means `spanfold.traces`. Transactions are read-only, so nothing is written by accident.
    Ctrl-C cancels the statement. With --json, times are ISO 8601, numerics are numbers and bytes are hex.

    Example: spanfold sql --json 'SELECT trace_id, duration_ms FROM traces ORDER BY duration_ms DESC LIMIT 5'
    """
    chosen = running_settings(chosen_settings(home))
    dsn = with_options(named_postgres(chosen))
    if query is None:
        _open_psql(chosen, dsn)
    statement = sys.stdin.read() if query == "-" else str(query)
    try:
        _print_json(dsn, statement) if as_json else _print_table(dsn, statement)
    except KeyboardInterrupt:
        notices().print("spanfold: cancelled")
        raise typer.Exit(CANCELLED) from None
    except psycopg.Error as error:
        raise translated(error, statement) from error


def with_options(dsn: str) -> str:
    """The DSN with what each session of this command starts with."""
    own = conninfo_to_dict(dsn).get("options")
    return make_conninfo(dsn, options=f"{own or ''} {OPTIONS}".strip(), application_name="spanfold sql")


@contextmanager
def reading(dsn: str, **parameters: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection that can only read, with these parameters of libpq; errors within the block are `explained`."""
    with explained(), psycopg.connect(make_conninfo(with_options(dsn), **parameters)) as connection:
        yield connection


@contextmanager
def explained() -> Iterator[None]:
    """Within the block Misconfigured says that the database does not know what was asked for, StoreUnavailable that Postgres does
    not answer.
    """
    try:
        yield
    except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn, psycopg.errors.InvalidSchemaName) as error:
        raise Misconfigured("this database is not up to date: run `spanfold migrate`, or start a worker") from error
    except psycopg.OperationalError as error:
        raise unreachable_postgres(error) from error


def translated(error: psycopg.Error, statement: str) -> InvalidInput | StoreUnavailable:
    """One line about an error: what is wrong, and at which line and column of the statement."""
    diag = error.diag
    if diag.message_primary is None or (error.sqlstate or "")[:2] in ("08", "57"):
        return unreachable_postgres(error)
    place = ""
    if diag.statement_position:
        before = statement[: int(diag.statement_position) - 1]
        place = f" at line {before.count(chr(10)) + 1}, column {len(before) - (before.rfind(chr(10)) + 1) + 1}"
    more = "".join(f"; {text}" for text in (diag.message_detail, diag.message_hint) if text)
    return InvalidInput(f"SQL error{place}: {diag.message_primary}{more} ({error.sqlstate})".replace("\n", " "))


def _print_table(dsn: str, statement: str) -> None:
    """Values as Postgres writes them."""
    with psycopg.connect(dsn) as connection, connection.cursor() as cursor:
        _execute(cursor, statement)
        result = cursor.pgresult
        if result is None or cursor.description is None:
            notices().print(cursor.statusmessage or "")
            return
        columns = range(result.nfields)
        rows = [[_text(result.get_value(row, column)) for column in columns] for row in range(result.ntuples)]
        numeric = {index for index, column in enumerate(cursor.description) if column.type_code in NUMERIC_OIDS}
        console().print(table([column.name for column in cursor.description], rows, right=numeric))
        notices().print(f"({len(rows)} row{'' if len(rows) == 1 else 's'})")


def _print_json(dsn: str, statement: str) -> None:
    with psycopg.connect(dsn) as connection, connection.cursor() as cursor:
        for kind in ("timestamptz", "timestamp"):
            cursor.adapters.register_loader(kind, IsoLoader)
        for kind in ("date", "time", "timetz", "interval"):
            cursor.adapters.register_loader(kind, TextLoader)
        for kind in ("float4", "float8"):
            cursor.adapters.register_loader(kind, FiniteLoader)
        _execute(cursor, statement)
        names = _distinct([column.name for column in cursor.description or ()])
        print_json_rows(dict(zip(names, row, strict=True)) for row in (cursor if names else ()))


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


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode(errors="replace")


class TextLoader(Loader):
    """Keeps what Postgres writes: Python's dates and times end at the year 9999, Postgres' don't."""

    def load(self, data: Buffer) -> str:
        return bytes(data).decode()


class IsoLoader(TextLoader):
    """A time as ISO 8601, in UTC where it has a zone."""

    def load(self, data: Buffer) -> str:
        text = super().load(data).replace(" ", "T", 1)
        return f"{text}:00" if text.endswith("+00") else text


class FiniteLoader(TextLoader):
    """A number; those that JSON lacks are the texts NaN, Infinity and -Infinity, as in tags."""

    def load(self, data: Buffer) -> Any:
        text = super().load(data)
        return text if text[-1].isalpha() else float(text)


def _open_psql(settings: Settings, dsn: str) -> None:
    """Become psql: the one that came with the embedded server, else the one on PATH. Its history stays in the home."""
    state = read_state(settings.home)
    psql = (state.psql if state else None) or shutil.which("psql")
    if psql is None:
        raise Misconfigured("psql is not on PATH: install PostgreSQL's client, or pass a query")
    parts = conninfo_to_dict(dsn)
    password = parts.pop("password", None)
    environment = {**os.environ, "PSQL_HISTORY": str(_history(settings.home))}
    if password:
        environment["PGPASSWORD"] = str(password)  # and not in an argument, which other users can read
    os.execve(psql, ["psql", make_conninfo("", **parts)], environment)  # noqa: S606  # no shell is wanted


def _history(home: Path) -> Path:
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    return home / "psql_history"
