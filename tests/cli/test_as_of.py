"""`spanfold as-of` as a user has it. What such a schema shows is tested in tests/rebuilds/test_as_of.py."""

from typing import Any

import psycopg

from spanfold.errors import StoreUnavailable
from spanfold.settings import Settings
from stream_processors import as_of as past
from tests.cli.conftest import Run, told

NOWHERE = "postgresql://nobody:secret@127.0.0.1:1/none"


def test_a_dropped_schema_is_told_to_people_and_to_programs(
    invoke: Run, stack_settings: Settings, ledger: psycopg.Connection[Any]
) -> None:
    for into in ("one", "two"):
        past.create_schema(str(stack_settings.postgres_dsn), into, "a moment")
    assert invoke("as-of", "--drop", "one").stdout == "dropped one: it was empty\n"
    assert told(invoke, "as-of", "--drop", "two") == {"schema": "two", "dropped": []}
    assert ledger.execute("SELECT FROM pg_namespace WHERE nspname IN ('one', 'two')").fetchall() == []


def test_a_postgres_that_does_not_answer_is_worth_another_try(invoke: Run) -> None:
    done = invoke("as-of", "--drop", "yesterday", SPANFOLD_POSTGRES_DSN=NOWHERE)
    assert isinstance(done.exception, StoreUnavailable), repr(done.exception)
    assert "secret" not in str(done.exception)
