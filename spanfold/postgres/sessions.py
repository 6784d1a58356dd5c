"""What a session relies on, whatever ALTER DATABASE … SET and ALTER ROLE … SET say.

The settings are SET after the login. PgBouncer refuses a login that brings them along (the parameter `options`), and hands a SET
on to the server; a session of its own for each client (pool_mode = session) keeps them. default_transaction_read_only and `role`
are left to the database: the first says that this server has become a standby, the second who owns what is created.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import psycopg
from psycopg import sql

Settings = Mapping[str, str]
"""Values of Postgres' parameters, by name."""

PINNED: Final[Settings] = {
    # what text, times and numbers look like on their way in and out
    "client_encoding": "UTF8",
    "datestyle": "ISO, YMD",
    "intervalstyle": "postgres",
    "timezone": "UTC",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "lc_monetary": "C",
    "lc_numeric": "C",
    "lc_time": "C",
    "xmlbinary": "base64",
    # what a statement means
    "search_path": "public",
    "standard_conforming_strings": "on",
    "array_nulls": "on",
    "transform_null_equals": "off",
    "quote_all_identifiers": "off",
    "gin_fuzzy_search_limit": "0",
    "row_security": "off",  # an error rather than rows that a policy leaves out
    "default_transaction_isolation": "read committed",
    "default_transaction_deferrable": "off",
    # for how long
    "statement_timeout": "0",
    "lock_timeout": "0",
    "transaction_timeout": "0",
    "idle_session_timeout": "0",
    # a process that is frozen in mid-transaction holds its partition's checkpoints no longer than this
    "idle_in_transaction_session_timeout": "60s",
}
"""Of every session; one that a server does not know yet is left out."""

PLAIN: Final[Settings] = MappingProxyType({})
"""Of a session as PINNED has it."""

PATIENT: Final[Settings] = {"idle_in_transaction_session_timeout": "0"}
"""Of a session whose transaction waits for other work."""

READ_ONLY: Final[Settings] = {
    "search_path": "spanfold, public",
    "default_transaction_read_only": "on",
    "row_security": "on",
    **PATIENT,
}
"""Of a session that can't write and whose tables need no schema."""

FIRST: Final = b"SET statement_timeout = 0"
"""A statement of its own: the database's limit applies until then, and may be too short for the others."""

_PIN: Final = sql.SQL("""
SELECT pg_catalog.set_config('synchronous_commit', 'on', false)
 WHERE pg_catalog.current_setting('synchronous_commit') = 'off'
 UNION ALL
SELECT pg_catalog.set_config('lc_messages', 'C', false)
 WHERE pg_catalog.current_setting('is_superuser') = 'on'
 UNION ALL
SELECT pg_catalog.set_config(pinned.name, pinned.value, false)
  FROM (VALUES {pinned}) AS pinned (name, value)
 WHERE pg_catalog.current_setting(pinned.name, true) IS NOT NULL
""")


def statement(settings: Settings = PLAIN) -> sql.Composed:
    """What pins a session to PINNED, with `settings` in their place or besides. Of synchronous_commit only
    `off` is changed; lc_messages takes a superuser.
    """
    pinned = {**PINNED, **settings}.items()
    return _PIN.format(pinned=sql.SQL(", ").join(sql.SQL("({}, {})").format(*pair) for pair in pinned))


def pin(connection: psycopg.Connection[Any], settings: Settings = PLAIN) -> None:
    """Pin a session in autocommit mode, as `statement` has it."""
    connection.execute(FIRST)
    connection.execute(statement(settings), prepare=False)


async def pin_async(connection: psycopg.AsyncConnection[Any], settings: Settings = PLAIN) -> None:
    """The same for an event loop."""
    await connection.execute(FIRST)
    await connection.execute(statement(settings), prepare=False)


def as_options(settings: Settings) -> str:
    """The same as libpq's parameter `options`, for a program that opens its session itself."""
    return " ".join(f"-c {name}={value.replace(' ', chr(92) + ' ')}" for name, value in {**PINNED, **settings}.items())
