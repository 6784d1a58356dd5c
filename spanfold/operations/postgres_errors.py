"""Postgres' errors, as an operator should read them: one line each, without the DSN, which may hold a password."""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from spanfold.language.errors import InvalidInput, Misconfigured, StoreUnavailable
from spanfold.postgres.errors import translated


@contextmanager
def reads_translated() -> Iterator[None]:
    """Within the block Misconfigured says that the database lacks a table of spanfold, or that the role may not read it,
    StoreUnavailable that Postgres does not answer.
    """
    try:
        yield
    except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn, psycopg.errors.InvalidSchemaName) as error:
        raise Misconfigured("this database is not up to date: run `spanfold migrate`, or start a worker") from error
    except psycopg.errors.InsufficientPrivilege as error:
        raise not_permitted(error) from error
    except psycopg.OperationalError as error:
        raise translated(error) from error


def not_permitted(error: psycopg.errors.InsufficientPrivilege) -> Misconfigured:
    """What a role that only reads is answered where it would write, or look behind the views."""
    return Misconfigured(
        f"this role may not do that ({error.diag.message_primary}): use a login with the role that owns spanfold's tables"
    )


@contextmanager
def writes_translated(afterwards: str = "The live tables are as they were") -> Iterator[None]:
    """Within the block errors of psycopg and SQLAlchemy become StoreUnavailable: what Postgres said, and how things stand."""
    from sqlalchemy.exc import DBAPIError  # imported here: it takes longer than most operations

    try:
        yield
    except (psycopg.Error, DBAPIError) as error:
        raise _failed(error.orig if isinstance(error, DBAPIError) else error, afterwards) from error


def _failed(error: BaseException | None, afterwards: str) -> Misconfigured | StoreUnavailable:
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        return not_permitted(error)
    if isinstance(error, psycopg.Error) and error.sqlstate:
        words = " ".join(str(error).split())
        return StoreUnavailable(f"Postgres: {words} (SQLSTATE {error.sqlstate}). {afterwards}")
    return translated(error)


def statement_error(error: psycopg.Error, statement: str) -> InvalidInput | Misconfigured | StoreUnavailable:
    """One line about a statement that failed: what is wrong, and at which line and column."""
    diag = error.diag
    if diag.message_primary is None or (error.sqlstate or "")[:2] in ("08", "57"):
        return translated(error)
    place = ""
    if diag.statement_position:
        before = statement[: int(diag.statement_position) - 1]
        place = f" at line {before.count(chr(10)) + 1}, column {len(before) - (before.rfind(chr(10)) + 1) + 1}"
    more = "".join(f"; {text}" for text in (diag.message_detail, diag.message_hint) if text)
    return InvalidInput(f"SQL error{place}: {diag.message_primary}{more} ({error.sqlstate})".replace("\n", " "))
