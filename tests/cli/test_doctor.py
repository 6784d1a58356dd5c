"""`spanfold doctor`: what is amiss is found, named and answered with what to do."""

import json
import os
import shutil
import signal
import socket
import time
import urllib.request
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

from spanfold.language import extras
from spanfold.language.settings import Settings
from spanfold.operations.doctor import machine
from spanfold.operations.installation import Installation
from tests.cli.shell import Shell
from tests.support.waiting import until

pytestmark = pytest.mark.timeout(180)


def examined(shell: Shell, **environment: str) -> tuple[int, dict[str, Any]]:
    """The exit code, and the checks by name."""
    done = shell("doctor", "--json", **environment)
    return done.returncode, {each["name"]: each for each in json.loads(done.stdout)}


def test_a_running_stack_is_well_and_its_workers_are_asked(running: Shell) -> None:
    code, checks = examined(running)
    assert {name: each for name, each in checks.items() if each["state"] == "fail"} == {}
    assert code == 0
    installed = {"Python", "packages", "Java", "PostgreSQL", "Kafka's jars", "clock"}
    assert installed | {"Kafka", "Topics", "Postgres", "Tables"} <= set(checks)
    assert "faust-streaming 0.15.3" in checks["packages"]["finding"]
    assert running.up_state.kafka_bootstrap in checks["Kafka"]["finding"]
    assert checks["projector-1"]["finding"].startswith("healthy: http://127.0.0.1:")
    assert {"port of kafka", "port of kafka_controller", "port of postgres"} <= set(checks)
    assert "! " not in running("doctor").stdout


def test_status_and_up_tell_where_the_metrics_are(running: Shell) -> None:
    processes = {each["name"]: each for each in running.json("status")["processes"]}
    url = processes["projector-1"]["url"]
    assert processes["kafka"]["url"] is None

    def metrics() -> bytes:
        with urllib.request.urlopen(f"{url}/metrics", timeout=10) as answer:  # noqa: S310  # the worker's own
            said: bytes = answer.read()
            return said

    # the worker asks the broker every few seconds, for the first time before it owns anything
    until(lambda: b"spanfold_lag_records{" in metrics(), "the worker's lag is known", metrics)
    assert f"{url}/metrics" in running("status").stdout


def test_a_worker_that_hangs_is_found(running: Shell) -> None:
    worker = psutil.Process(running.up_state.pids["projector-1"])
    worker.send_signal(signal.SIGSTOP)
    try:
        code, checks = examined(running)
    finally:
        worker.send_signal(signal.SIGCONT)
    assert code == 3
    assert checks["projector-1"]["state"] == "fail"
    assert checks["projector-1"]["advice"] == f"its log: {running.up_state.logs / 'projector-1.log'}"


def test_where_nothing_runs_it_says_how_to_start(shell: Shell) -> None:
    code, checks = examined(shell)
    assert code == 0
    assert checks["servers"]["advice"] == f"start one with `spanfold up --detach --home {shell.home}`"
    assert not shell.home.exists()


def test_servers_that_do_not_answer_are_named(shell: Shell) -> None:
    named = {
        "SPANFOLD_KAFKA_BOOTSTRAP": "127.0.0.1:1",
        "SPANFOLD_POSTGRES_DSN": "postgresql://user:secret@127.0.0.1:1/nothing",
    }
    code, checks = examined(shell, **named)
    assert code == 3
    assert "127.0.0.1:1 did not answer" in checks["Kafka"]["finding"]
    assert "SPANFOLD_POSTGRES_DSN" in checks["Postgres"]["advice"]
    assert "Topics" not in checks
    assert "secret" not in json.dumps(checks)


def test_topics_and_tables_that_are_not_as_they_must_be_are_named(running: Shell, own_servers: dict[str, str]) -> None:
    code, checks = examined(running, **own_servers)
    assert code == 3
    assert checks["Topics"]["finding"].startswith(f"missing on Kafka: {own_servers['SPANFOLD_TOPIC_PREFIX']}spanfold.")
    assert checks["Tables"]["finding"] == "this database has no spanfold tables"
    assert "migrate" in checks["Tables"]["advice"]

    assert running("migrate", **own_servers).returncode == 0
    assert examined(running, **own_servers)[0] == 0

    code, checks = examined(running, **own_servers, SPANFOLD_PARTITIONS="5")
    assert code == 3
    assert "has 4 partitions, expected 5" in checks["Topics"]["finding"]

    with psycopg.connect(own_servers["SPANFOLD_POSTGRES_DSN"], autocommit=True) as connection:
        connection.execute("UPDATE spanfold_core.topics SET broker_topic_id = 'another'")
        assert "folded from other topics" in examined(running, **own_servers)[1]["Tables"]["finding"]
        connection.execute("UPDATE public.schema_version SET version_num = '0000'")
        assert "schema version 0000, this spanfold needs" in examined(running, **own_servers)[1]["Tables"]["finding"]


def test_parts_that_are_missing_are_named(shell: Shell, tmp_path: Path) -> None:
    code, checks = examined(shell, XDG_CACHE_HOME=str(tmp_path))
    assert code == 0
    assert checks["Kafka's jars"]["state"] == "warn"
    assert f"are not in {tmp_path}/spanfold/jars" in checks["Kafka's jars"]["finding"]


def test_a_port_that_another_took_is_named(shell: Shell) -> None:
    shell.home.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        (shell.home / "ports.json").write_text(json.dumps({"kafka": port}))
        checks = examined(shell)[1]
        assert checks["port of kafka"]["state"] == "warn"
        assert f"{port} is taken by " in checks["port of kafka"]["finding"]
        assert f"(pid {os.getpid()})" in checks["port of kafka"]["finding"]
    assert examined(shell)[1]["port of kafka"]["state"] == "ok"


TARGET = Installation(Settings(home=Path("/")))


def test_a_pin_that_is_not_met_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        extras, "requires", lambda _: ["faust-streaming==0.14.0", "rich>=99", "nothing-of-it>=1", "orjson>=3.10"]
    )
    (check,) = machine._packages(TARGET)
    assert check.state == "fail"
    assert "faust-streaming is 0.15.3, spanfold needs ==0.14.0" in check.finding
    assert "spanfold needs >=99" in check.finding
    assert "nothing-of-it is missing" in check.finding
    assert "orjson" not in check.finding


def test_a_full_disk_and_a_clock_of_the_last_century_are_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 1000, "total": 10**12})
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert {each.state for each in machine._disk(TARGET)} == {"fail"}
    assert [each.state for each in machine._clock(TARGET)] == ["fail"]
