"""`spanfold sql`: the read models in a terminal, a pipe or a script."""

import os
import shutil
import sys
from pathlib import Path
from typing import Annotated, Final

import typer
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from spanfold.cli.options import AsJson, Home, installation
from spanfold.cli.output import console, notices, print_json_rows, table
from spanfold.language.errors import Misconfigured
from spanfold.operations.installation import Installation
from spanfold.operations.sql import query_rows, query_table
from spanfold.postgres.sessions import READ_ONLY, as_options

CANCELLED: Final = 130


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
    target = installation(home)
    if query is None:
        _open_psql(target)
    statement = sys.stdin.read() if query == "-" else str(query)
    try:
        if as_json:
            print_json_rows(query_rows(target, statement))
        else:
            _print_table(target, statement)
    except KeyboardInterrupt:
        notices().print("spanfold: cancelled")
        raise typer.Exit(CANCELLED) from None


def _print_table(target: Installation, statement: str) -> None:
    result = query_table(target, statement)
    if not result.columns:
        notices().print(result.status)
        return
    console().print(table(result.columns, result.rows, right=result.numeric))
    notices().print(f"({len(result.rows)} row{'' if len(result.rows) == 1 else 's'})")


def _open_psql(target: Installation) -> None:
    """Become psql: the one that came with the embedded server, else the one on PATH. Its history stays in the home."""
    psql = (target.stack.psql if target.stack else None) or shutil.which("psql")
    if psql is None:
        raise Misconfigured("psql is not on PATH: install PostgreSQL's client, or pass a query")
    parts = conninfo_to_dict(target.dsn)
    options = f"{parts.get('options', '')} {as_options(READ_ONLY)}".strip()
    parts |= {"options": options, "application_name": "spanfold sql"}
    password = parts.pop("password", None)
    environment = {**os.environ, "PSQL_HISTORY": str(_history(target.settings.home))}
    if password:
        environment["PGPASSWORD"] = str(password)  # and not in an argument, which other users can read
    os.execve(psql, ["psql", make_conninfo("", **parts)], environment)  # noqa: S606  # no shell is wanted


def _history(home: Path) -> Path:
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    return home / "psql_history"
