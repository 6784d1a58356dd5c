"""`spanfold publish` as a user has it, on a real Kafka and a real Postgres."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import typer
from typer.testing import CliRunner, Result

from spanfold.cli.publish import publish
from spanfold.kafka.log_ends import ends_of_log
from spanfold.language import settings as settings_module
from spanfold.language.errors import InvalidInput, Misconfigured, StoreUnavailable
from spanfold.language.events import series_id
from spanfold.language.settings import Settings
from spanfold.language.topics import TopicOnBroker
from spanfold.operations.visibility import wait_until_visible
from tests.support.databases import Ledger
from tests.support.workers import Start

Run = Callable[..., Result]
ReadAll = Callable[[int], list[Any]]
Decoded = Callable[[Any], tuple[str, dict[str, Any]]]

COMPLETED = {"event_type": "TraceCompleted", "aggregate_id": "t-1"}


@pytest.fixture
def settings(stack_settings: Settings, topics: dict[str, TopicOnBroker]) -> Settings:
    return stack_settings


@pytest.fixture
def environment(settings: Settings) -> dict[str, str]:
    return {
        "SPANFOLD_KAFKA_BOOTSTRAP": str(settings.kafka_bootstrap),
        "SPANFOLD_POSTGRES_DSN": str(settings.postgres_dsn),
        "SPANFOLD_TOPIC_PREFIX": settings.topic_prefix,
        "SPANFOLD_GROUP": settings.group,
    }


@pytest.fixture
def run(environment: dict[str, str]) -> Iterator[Run]:
    app = typer.Typer()
    app.command()(publish)

    def invoke(*args: str, stdin: str | None = None) -> Result:
        settings_module.settings.cache_clear()
        return CliRunner().invoke(app, args, input=stdin, env=environment)

    yield invoke
    settings_module.settings.cache_clear()


@pytest.fixture
def projector(ledger: Ledger, start: Start) -> Iterator[None]:
    worker = start()
    yield
    assert worker.stop() == 0


def _lines(*events: object) -> str:
    return "".join(json.dumps(each) + "\n" for each in events)


def test_flags_become_one_event(run: Run, read_all: ReadAll, decoded: Decoded) -> None:
    result = run(
        *("--type", "SpanRecorded", "--trace-id", "t-1", "--service", "shop", "--operation", "GET /cart"),
        *("--span-id", "s-1", "--kind", "server", "--start", "2026-11-23T07:00:00Z", "--end", "2026-11-23T07:00:01Z"),
        *("--tag", "http.status=200", "--tag", "plan=gold", "--data", '{"status": "ok", "tags": {"beta": true}}'),
    )
    assert result.exit_code == 0, result.output
    assert "1 published" in result.stdout
    event_type, fields = decoded(read_all(1)[0])
    assert event_type == "SpanRecorded"
    assert fields["tags"] == {"beta": True, "http.status": 200, "plan": "gold"}
    assert (fields["kind"], fields["status"], fields["source"]) == ("server", "ok", "spanfold-cli")
    assert fields["end_time"] - fields["start_time"] == 1_000_000


def test_json_says_where_each_event_lies(run: Run, read_all: ReadAll) -> None:
    events = [{**COMPLETED, "aggregate_id": f"t-{number}"} for number in range(50)]
    result = run("-", "--json", stdin=_lines(*events))
    told = {(row["aggregate_id"], row["partition"], row["offset"]) for row in json.loads(result.stdout)}
    assert told == {(each.key().decode(), each.partition(), each.offset()) for each in read_all(50)}


def test_a_metric_point_from_flags(run: Run, points: Callable[[int], list[dict[str, Any]]]) -> None:
    flags = ("--service", "shop", "--name", "queue.length", "--value", "7", "--tag", "queue=mail", "--unit", "{mail}")
    result = run("--type", "MetricUpdated", *flags)
    assert result.exit_code == 0, result.output
    (point,) = points(1)
    assert (point["value"], point["labels"], point["unit"]) == (7, {"queue": "mail"}, "{mail}")
    assert point["aggregate_id"] == series_id({"service.name": "shop"}, "", "queue.length", {"queue": "mail"})


def test_a_log_record_from_flags_belongs_to_its_trace(
    run: Run, log_records: Callable[[int], list[dict[str, Any]]]
) -> None:
    flags = ("--type", "LogRecorded", "--service", "shop", "--body", "boom", "--severity", "error")
    assert run(*flags, "--trace-id", "t-1", "--tag", "disk=sda").exit_code == 0
    assert run(*flags).exit_code == 0
    found = {each["aggregate_id"]: each for each in log_records(2)}
    assert found.keys() == {"t-1", "shop"}
    assert (found["t-1"]["trace_id"], found["t-1"]["tags"]) == ("t-1", {"disk": "sda"})
    assert {(each["body"], each["severity_number"], each["severity_text"]) for each in found.values()} == {
        ("boom", 17, "error")
    }


def test_a_body_may_be_json_and_a_severity_a_number(
    run: Run, log_records: Callable[[int], list[dict[str, Any]]]
) -> None:
    result = run("--type", "LogRecorded", "--service", "shop", "--body", '{"a": [1, null]}', "--severity", "24",
                 "--data", '{"resource": {"host": {"cpus": 2}}, "scope_name": "s", "event_name": "e"}')  # fmt: skip
    assert result.exit_code == 0, result.output
    (record,) = log_records(1)
    assert (record["body"], record["severity_number"], record["severity_text"]) == ({"a": [1, None]}, 24, "")
    assert (record["resource"], record["scope_name"], record["event_name"]) == ({"host": {"cpus": 2}}, "s", "e")


def test_bad_lines_are_named_and_the_others_are_sent(run: Run, read_all: ReadAll) -> None:
    result = run("-", stdin=_lines(COMPLETED) + "\nnot json\n" + _lines({"event_type": "TraceEnded"}, COMPLETED))
    assert isinstance(result.exception, InvalidInput)
    assert str(result.exception) == "2 lines were refused, the others were sent"
    assert "line 3: not JSON" in result.stderr
    assert "line 4: event_type: unknown type 'TraceEnded'" in result.stderr
    assert len(read_all(2)) == 2


def test_strict_sends_nothing_when_a_line_is_bad(run: Run, read_all: ReadAll, tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    file.write_text(_lines(COMPLETED) + "{}\n")
    result = run(str(file), "--strict")
    assert isinstance(result.exception, InvalidInput)
    assert "nothing was sent" in str(result.exception)
    assert read_all(0) == []


@pytest.mark.parametrize(
    ("args", "complaint"),
    [
        (("--type", "TraceCompleted", "events.jsonl"), "either flags or JSON lines"),
        (("--type", "TraceCompleted"), "missing aggregate_id"),
        (("--type", "MetricUpdated", "--service", "s", "--name", "n", "--value", "x"), "value: expected a number"),
        (("--type", "RecordDiscarded", "--aggregate-id", "t"), "only `spanfold parked` publishes it"),
        (("--type", "TraceCompleted", "--trace-id", "t", "--tag", "novalue"), "expected key=value"),
        (("--type", "TraceCompleted", "--trace-id", "t", "--data", "[]"), "expected a JSON object"),
        (("--type", "TraceCompleted", "--trace-id", "t", "--at", "noon"), "occurred_at: expected a time"),
        (
            ("--type", "LogRecorded", "--service", "s", "--severity", "LOUD"),
            "severity: expected one of TRACE, DEBUG, INFO",
        ),
        (("--type", "LogRecorded", "--service", "s", "--severity", "25"), "or a number from 0 to 24, got '25'"),
        (("no-such-file.jsonl",), "No such file"),
    ],
)
def test_wrong_use_is_explained(run: Run, args: tuple[str, ...], complaint: str) -> None:
    result = run(*args)
    assert isinstance(result.exception, InvalidInput)
    assert complaint in str(result.exception)


def test_wait_returns_when_the_rows_are_there(run: Run, ledger: psycopg.Connection[Any], projector: None) -> None:
    result = run("-", "--wait", stdin=_lines(*({**COMPLETED, "aggregate_id": f"t-{number}"} for number in range(500))))
    assert result.exit_code == 0, result.output
    assert "500 published, visible" in result.stdout
    counted = ledger.execute("SELECT count(*) FROM spanfold.traces WHERE status = 'completed'").fetchone()
    assert counted == (500,)


def test_without_a_postgres_to_wait_for_nothing_is_published(
    environment: dict[str, str], run: Run, settings: Settings, tmp_path: Path
) -> None:
    environment |= {"SPANFOLD_POSTGRES_DSN": "", "SPANFOLD_HOME": str(tmp_path)}
    result = run("-", "--wait", stdin=_lines(COMPLETED))
    assert isinstance(result.exception, Misconfigured), result.output
    assert "no Postgres is configured" in str(result.exception)
    assert sum(ends_of_log(settings).values()) == 0


def test_wait_without_a_worker_says_what_is_behind(run: Run, ledger: psycopg.Connection[Any]) -> None:
    result = run("-", "--wait", "--timeout", "2", stdin=_lines(COMPLETED))
    assert isinstance(result.exception, StoreUnavailable)
    assert "of spanfold.traces is folded up to offset 0 of 1" in str(result.exception)


def test_wait_says_what_is_wrong_with_the_database(postgres_dsn: str) -> None:
    with pytest.raises(Misconfigured, match="no read models yet"):
        wait_until_visible(postgres_dsn, {("spanfold.traces", 0): 1}, 2)
    with pytest.raises(StoreUnavailable, match="can't be used"):
        wait_until_visible("postgresql://nobody@127.0.0.1:1/none", {("spanfold.traces", 0): 1}, 2)


def test_wait_says_what_the_log_has_rejected(run: Run, ledger: psycopg.Connection[Any], projector: None) -> None:
    long_ago = {**COMPLETED, "aggregate_id": "long ago", "occurred_at": "2020-01-01T00:00:00Z"}
    result = run("-", "--wait", stdin=_lines(COMPLETED, long_ago))
    assert isinstance(result.exception, InvalidInput)
    assert str(result.exception) == "1 of 2 events are in the log, but no read model shows them: expired"
    assert "2 published, 1 visible, 1 expired" in result.stdout
    assert "expired: " in result.stderr
    again = run("-", "--wait", stdin=_lines(COMPLETED))
    assert again.exit_code == 0, again.output


def test_a_silent_standard_input_is_waited_for_aloud(environment: dict[str, str], read_all: ReadAll) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "spanfold", "publish"], env={**os.environ, **environment},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr
    assert process.stderr.readline() == "waiting for events on standard input, one JSON object a line\n"
    output, _ = process.communicate(_lines(COMPLETED), timeout=60)
    assert (process.returncode, output) == (0, "1 published\n")
    assert len(read_all(1)) == 1
