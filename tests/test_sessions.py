"""What a database's settings say changes nothing of what is stored and read."""

from collections.abc import Callable
from typing import Any, Final

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import text

from spanfold.language.settings import Settings
from spanfold.operations.installation import Installation
from spanfold.operations.reading import reading
from spanfold.postgres.connections import connect
from spanfold.postgres.engine import engine_of
from spanfold.postgres.pool import Postgres
from spanfold.postgres.sessions import PINNED, READ_ONLY
from spanfold.projections.generations import lifecycle
from spanfold.projections.projection import installed
from tests.support.publishing import publish_all
from tests.support.single_events import completed, created, span
from tests.support.workers import Start, folded

HOSTILE: Final = {
    "client_encoding": "LATIN1",
    "datestyle": "German, DMY",
    "intervalstyle": "sql_standard",
    "timezone": "Pacific/Chatham",
    "bytea_output": "escape",
    "extra_float_digits": "-15",
    "lc_monetary": "POSIX",
    "lc_numeric": "POSIX",
    "lc_time": "POSIX",
    "xmlbinary": "hex",
    "search_path": "hostile, pg_catalog",
    "standard_conforming_strings": "off",
    "array_nulls": "off",
    "transform_null_equals": "on",
    "quote_all_identifiers": "on",
    "gin_fuzzy_search_limit": "1",
    "row_security": "on",
    "default_transaction_isolation": "serializable",
    "default_transaction_deferrable": "on",
    "statement_timeout": "50ms",
    "lock_timeout": "1ms",
    "transaction_timeout": "300ms",
    "idle_session_timeout": "1500ms",
    "idle_in_transaction_session_timeout": "1ms",
    "synchronous_commit": "off",
}

SHOWN: Final = "SELECT name, current_setting(name) FROM unnest(%s::text[]) AS name"


def test_each_pinned_setting_has_a_hostile_value() -> None:
    assert HOSTILE.keys() == PINNED.keys() | {"synchronous_commit"}


def make_hostile(dsn: str) -> None:
    """From its next session on the database is hostile, and has tables named as those of a search path."""
    name = sql.Identifier(dsn.rpartition("/")[2])
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA hostile CREATE VIEW traces AS SELECT 'hostile' AS trace_id")
        for parameter, value in HOSTILE.items():
            shown = sql.SQL("hostile, pg_catalog") if parameter == "search_path" else sql.Literal(value)
            connection.execute(sql.SQL("ALTER DATABASE {} SET {} TO {}").format(name, sql.Identifier(parameter), shown))


@pytest.fixture
def hostile_dsn(postgres_dsn: str) -> str:
    make_hostile(postgres_dsn)
    return postgres_dsn


def by_connection(dsn: str, names: list[str]) -> dict[str, str]:
    with connect(dsn, "test") as connection:
        return dict(connection.execute(SHOWN, [names]).fetchall())


def by_engine(dsn: str, names: list[str]) -> dict[str, str]:
    with engine_of(dsn).connect() as connection:
        return {
            name: connection.execute(text("SELECT current_setting(:name)"), {"name": name}).scalar_one()
            for name in names
        }


def by_reading(dsn: str, names: list[str]) -> dict[str, str]:
    with reading(dsn, "test") as connection:
        return dict(connection.execute(SHOWN, [names]).fetchall())


@pytest.mark.parametrize(
    ("ask", "differs"),
    [
        (by_connection, {}),
        (by_engine, {"idle_in_transaction_session_timeout": "0"}),
        (by_reading, READ_ONLY),
    ],
)
def test_a_session_is_pinned(
    hostile_dsn: str, ask: Callable[[str, list[str]], dict[str, str]], differs: dict[str, str]
) -> None:
    expected = {**PINNED, "synchronous_commit": "on", **differs}
    shown = ask(hostile_dsn, list(expected))
    assert {name: value.replace("1min", "60s") for name, value in shown.items()} == expected


async def test_sessions_of_a_pool_are_pinned(hostile_dsn: str) -> None:
    async with Postgres(hostile_dsn) as postgres:
        rows = await postgres.rows(SHOWN, [list(PINNED)], within_s=60)
    assert {name: value.replace("1min", "60s") for name, value in rows} == PINNED


STORED: Final = """
SELECT t.trace_id, t.status, t.start_time, t.tags, s.operation_name, s.tags, s.start_time, s.duration_ms
  FROM spanfold.traces t JOIN spanfold.spans s USING (trace_id)
 ORDER BY t.trace_id
"""


@pytest.fixture
def both(
    start: Start, stack_settings: Settings, second_settings: Settings, topics: dict[str, Any]
) -> tuple[Settings, Settings]:
    """An ordinary and a hostile database, folded from the same log; the hostile one prepared as it is."""
    hostile_dsn = str(stack_settings.postgres_dsn)
    make_hostile(hostile_dsn)
    lifecycle.prepare(hostile_dsn, topics.values(), installed())
    for number in range(3):
        trace, tags = f"Zürich {number} €", {"city": "Zürich", "price": "5 €", "n": 2.0**70, "none": None}
        publish_all(
            stack_settings,
            [
                created(trace, tags=tags, operation_name="späti"),
                span(trace, tags=tags, operation_name="für 5 €"),
                completed(trace),
            ],
        )
    for settings in (stack_settings, second_settings):
        worker = start(settings)
        with connect(str(settings.postgres_dsn), "test") as ledger:
            folded(ledger, settings, worker)
        worker.check()
    return stack_settings, second_settings


def test_a_hostile_database_has_the_same_rows(both: tuple[Settings, Settings]) -> None:
    hostile, ordinary = (_stored(settings) for settings in both)
    assert len(hostile) == 3
    assert hostile == ordinary
    assert hostile[0][0] == "Zürich 0 €"
    assert hostile[0][3]["city"] == "Zürich"


def _stored(settings: Settings) -> list[tuple[Any, ...]]:
    with reading(Installation(settings).dsn, "test") as connection:
        return connection.execute(STORED).fetchall()
