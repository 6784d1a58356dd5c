"""`spanfold as-of` as a user has it. What such a schema shows is tested in tests/rebuilds/test_as_of.py."""

import json
from typing import Any

import psycopg
import pytest

from spanfold.language.errors import InvalidInput, StoreUnavailable
from spanfold.language.settings import Settings
from spanfold.stream_processors.rebuild import as_of_schemas as past
from tests.support.commands import Invoke, answer

NOWHERE = "postgresql://nobody:secret@127.0.0.1:1/none"


def test_a_dropped_schema_is_told_to_people_and_to_programs(
    invoke: Invoke, stack_settings: Settings, ledger: psycopg.Connection[Any]
) -> None:
    for into in ("one", "two"):
        past.create_schema(str(stack_settings.postgres_dsn), into, "a moment")
    assert invoke("as-of", "--drop", "one").stdout == "dropped one: it was empty\n"
    assert answer(invoke, "as-of", "--drop", "two") == {"schema": "two", "dropped": []}
    assert ledger.execute("SELECT FROM pg_namespace WHERE nspname IN ('one', 'two')").fetchall() == []


@pytest.mark.usefixtures("topics")
@pytest.mark.parametrize("form", ["spanfold.traces/{}@0", "traces/{}@0"])
def test_positions_are_taken_as_they_are_printed(
    invoke: Invoke, stack_settings: Settings, ledger: psycopg.Connection[Any], form: str
) -> None:
    words = [form.format(partition) for partition in range(stack_settings.partitions)]
    few = invoke("as-of", words[0], "traces", "--into", "past")
    assert isinstance(few.exception, InvalidInput), few.output
    assert "spanfold.traces/1@" in str(few.exception)
    done = invoke("as-of", *words, "traces", "--into", "past", "--json")
    assert done.exit_code == 0, repr(done.exception)
    assert json.loads(done.stdout) == {
        "schema": "past", "records": {"traces": 0}, "erased": 0, "view": "past.traces",
    }  # fmt: skip


def test_a_time_without_a_zone_is_no_position(invoke: Invoke, ledger: psycopg.Connection[Any]) -> None:
    done = invoke("as-of", "2026-11-23T07:00:00", "nothing", "--into", "past")
    assert "unknown projection nothing" in str(done.exception), repr(done.exception)


def test_a_postgres_that_does_not_answer_is_worth_another_try(invoke: Invoke) -> None:
    done = invoke("as-of", "--drop", "yesterday", SPANFOLD_POSTGRES_DSN=NOWHERE)
    assert isinstance(done.exception, StoreUnavailable), repr(done.exception)
    assert "secret" not in str(done.exception)
