"""`spanfold sql`, on a stack that `spanfold up --detach` started, and what that stack tells about itself."""

import json
import signal
import subprocess
from typing import Any

import psycopg
import pytest

from tests.cli.shell import Shell
from tests.support.waiting import until

pytestmark = pytest.mark.timeout(120)

TYPES = """
SELECT 1.10 AS exact, 1e30::numeric AS huge, 'NaN'::float8 AS not_a_number, true AS yes, NULL AS nothing, 7 AS whole,
       '2026-01-02 03:04:05.6+00'::timestamptz AS at, '200000-01-01'::timestamptz AS late, '\\x0aff'::bytea AS bytes,
       '00000000-0000-8000-8000-000000000001'::uuid AS id, '{"a": [1, null]}'::jsonb AS tags, 8 AS whole
"""


def in_the_log(status: Any) -> int:
    """How many records there are, on all topics: other tests publish to the same stack."""
    return sum(each["log_end"] - each["log_start"] for each in status["partitions"])


def test_a_published_trace_is_a_row(running: Shell) -> None:
    before = in_the_log(running.json("status"))
    published = running("publish", "--type", "TraceCreated", "--trace-id", "t1", "--service", "shop",
                        "--operation", "GET /cart", "--tag", "cart=7", "--wait")  # fmt: skip
    assert published.returncode == 0, published.stderr
    rows = running.json("sql", "SELECT trace_id, service_name, operation_name, tags FROM traces WHERE trace_id = 't1'")
    assert rows == [{"trace_id": "t1", "service_name": "shop", "operation_name": "GET /cart", "tags": {"cart": 7}}]
    shown = running.json("status")
    assert in_the_log(shown) == before + 1
    assert (shown["lag_total"], shown["problems"]) == (0, [])


def test_json_keeps_what_postgres_has(running: Shell) -> None:
    done = running("sql", "--json", TYPES)
    assert '"exact":1.10,"huge":1e+30,' in done.stdout
    (row,) = json.loads(done.stdout)
    del row["exact"], row["huge"]
    assert row == {
        "not_a_number": "NaN",
        "yes": True,
        "nothing": None,
        "whole": 7,
        "at": "2026-01-02T03:04:05.6+00:00",
        "late": "200000-01-01T00:00:00+00:00",
        "bytes": "0aff",
        "id": "00000000-0000-8000-8000-000000000001",
        "tags": {"a": [1, None]},
        "whole_2": 8,
    }


def test_a_table_in_a_pipe_cuts_nothing(running: Shell) -> None:
    done = running("sql", "-", stdin="SELECT repeat('x', 5000) AS long, '[red]' AS markup, NULL AS nothing")
    heading, row = done.stdout.splitlines()
    assert heading.split() == ["long", "markup", "nothing"]
    assert row.split() == ["x" * 5000, "[red]", "NULL"]
    assert done.stderr == "(1 row)\n"


def test_no_rows_are_an_empty_list(running: Shell) -> None:
    assert running.json("sql", "SELECT 1 WHERE false") == []


@pytest.mark.parametrize(
    ("query", "complaint"),
    [
        ("SELECT *\nFROM tracez", 'SQL error at line 2, column 6: relation "tracez" does not exist (42P01)'),
        ("SELECT 'ä', nix", 'SQL error at line 1, column 13: column "nix" does not exist (42703)'),
        ("CREATE TABLE t (i int)", "SQL error: cannot execute CREATE TABLE in a read-only transaction (25006)"),
        ("SELECT 1; SELECT 2", "the query has several statements; pass one at a time"),
        (" ", "the query is empty"),
    ],
)
def test_a_wrong_query_is_one_line_on_standard_error(running: Shell, query: str, complaint: str) -> None:
    done = running("sql", query)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"spanfold: {complaint}\n")


def test_ctrl_c_cancels_the_statement(running: Shell) -> None:
    process = subprocess.Popen(
        running.command("sql", "SELECT pg_sleep(60)"), env=running.environment(), stderr=subprocess.PIPE, text=True
    )
    with psycopg.connect(running.up_state.postgres_dsn, autocommit=True) as connection:
        sleeping = "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)' AND state = 'active'"
        until(lambda: connection.execute(sleeping).fetchone() == (1,), "the statement")
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
        assert (process.returncode, said) == (130, "spanfold: cancelled\n")
        assert connection.execute(sleeping).fetchone() == (0,)


def test_without_a_query_psql_opens_on_the_read_models(running: Shell) -> None:
    done = running(
        "sql",
        stdin="\\pset format unaligned\nSELECT count(*) AS partitions FROM checkpoints WHERE projection = 'traces';",
    )
    assert "partitions\n4\n" in done.stdout
    assert done.returncode == 0


def test_without_a_stack_it_says_how_to_start_one(shell: Shell) -> None:
    done = shell("sql", "SELECT 1")
    assert done.returncode == 3
    assert f"no stack is running in {shell.home}" in done.stderr
    assert "spanfold up --detach" in done.stderr


def test_a_postgres_that_does_not_answer_is_worth_another_try(shell: Shell) -> None:
    done = shell("sql", "SELECT 1", SPANFOLD_POSTGRES_DSN="postgresql://nobody:secret@127.0.0.1:1/nothing")
    assert done.returncode == 4
    assert done.stderr.count("\n") == 1
    assert "secret" not in done.stderr
