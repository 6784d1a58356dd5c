"""`spanfold up`, `status`, `migrate` and `down`, for real."""

import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from spanfold.language.topics import installed_topics
from tests.cli.shell import Shell, alive, end_order

pytestmark = pytest.mark.timeout(180)


def test_up_is_ready_when_the_worker_owns_every_partition(running: Shell) -> None:
    shown = running.json("status")
    state = running.up_state
    assert [each["name"] for each in shown["processes"]] == ["supervisor", *state.pids]
    assert {"kafka", "postgres", "projector-1", "snapshots", "otlp"} == set(state.pids)
    assert all(each["uptime_s"] > 0 for each in shown["processes"])
    assert (shown["kafka_bootstrap"], shown["postgres_dsn"]) == (state.kafka_bootstrap, state.postgres_dsn)
    (member,) = shown["group"]["members"]
    assert shown["group"]["state"] == "stable"
    assert {each["owner"] for each in shown["partitions"]} == {member["member_id"]}
    folding = {each["topic"]: [at["projection"] for at in each["checkpoints"]] for each in shown["partitions"]}
    assert folding["spanfold.traces"] == ["journal", "snapshots", "traces"]
    assert (shown["lag_total"], shown["parked"], shown["rejected"], shown["problems"]) == (0, {}, {}, [])


def test_a_second_up_names_the_first(running: Shell) -> None:
    state = running.up_state
    for words in (["up"], ["up", "--detach"]):
        done = running(*words)
        assert done.returncode == 3
        assert f"(pid {state.supervisor.pid})" in done.stderr
        assert state.kafka_bootstrap in done.stderr
        assert f"spanfold down --home {running.home}" in done.stderr


def test_migrate_finds_nothing_to_do_after_up(running: Shell) -> None:
    assert running.json("migrate") == {
        "done": [],
        "checked": sorted(topic.name for topic in installed_topics()),
        "left": [],
    }


def test_servers_of_ones_own_are_prepared_and_not_stopped(
    running: Shell, shell: Shell, own_servers: dict[str, str]
) -> None:
    prefix = own_servers["SPANFOLD_TOPIC_PREFIX"]
    assert shell.json("migrate", **own_servers)["done"] == [
        *sorted(f"created topic {topic.on_broker(prefix)} with 4 partitions" for topic in installed_topics()),
        "created the tables of schema version 0001",
        *(f"created generation 1 of projection {name}" for name in ("logs", "metrics", "services", "traces")),
    ]
    idle = shell("status", **own_servers)
    assert idle.returncode == 1
    assert "no worker owns spanfold.traces/0" in idle.stdout
    assert list(shell.json("up", "--detach", **own_servers)["processes"]) == ["projector-1", "snapshots", "otlp"]
    assert shell.json("status", **own_servers)["lag_total"] == 0
    assert shell("down").stdout == f"Stopped the stack in {shell.home}.\n"
    assert running("status").returncode == 0


def test_tables_of_another_fold_version_are_named_and_the_demo_does_not_wait_for_them(
    shell: Shell, own_servers: dict[str, str]
) -> None:
    shell.json("migrate", **own_servers)
    with psycopg.connect(own_servers["SPANFOLD_POSTGRES_DSN"], autocommit=True) as connection:
        connection.execute("UPDATE spanfold_core.generations SET fold_version = 2 WHERE projection = 'traces'")
    line = (
        "traces is shown as fold version 2 made it, this code has 1 and leaves it alone: run `spanfold rebuild traces`"
    )
    status = shell("status", "--json", **own_servers)
    assert status.returncode == 1
    assert line in json.loads(status.stdout)["problems"]
    demo = shell("demo", **own_servers)
    assert demo.returncode == 3
    assert line in demo.stderr
    assert f"spanfold up --detach --home {shell.home}` is running; or choose another --home" in demo.stderr


def test_its_own_kafka_is_plain_whatever_the_environment_says_of_another(
    shell: Shell, own_servers: dict[str, str]
) -> None:
    """Settings for a secured Kafka elsewhere reach neither the broker that `up` starts nor who talks to it."""
    elsewhere = {
        "SPANFOLD_KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
        "SPANFOLD_KAFKA_SASL_MECHANISM": "PLAIN",
        "SPANFOLD_KAFKA_SASL_USERNAME": "alice",
        "SPANFOLD_KAFKA_SASL_PASSWORD": "secret",
        "SPANFOLD_POSTGRES_DSN": own_servers["SPANFOLD_POSTGRES_DSN"],
    }
    assert list(shell.json("up", "--detach", **elsewhere)["processes"]) == ["kafka", "projector-1", "snapshots", "otlp"]
    shown = shell.json("status", **elsewhere)
    assert (shown["group"]["state"], shown["problems"]) == ("stable", [])
    assert shell("down", **elsewhere).returncode == 0


def test_status_shows_what_answers_and_names_what_does_not(running: Shell, shell: Shell) -> None:
    named = {
        "SPANFOLD_KAFKA_BOOTSTRAP": running.up_state.kafka_bootstrap,
        "SPANFOLD_POSTGRES_DSN": "postgresql://127.0.0.1:1/nothing",
    }
    done = shell("status", "--json", **named)
    shown = json.loads(done.stdout)
    assert done.returncode == 4
    assert len(shown["partitions"]) == 4 * len(installed_topics())
    assert (shown["parked"], shown["rejected"], shown["lag_total"]) == (None, None, None)
    assert shown["problems"][0].startswith("Postgres can't be used: ")


def test_what_cannot_start_says_why_and_leaves_nothing(running: Shell, shell: Shell) -> None:
    state = running.up_state
    done = shell("up", "--detach", "--kafka", state.kafka_bootstrap, "--postgres", "postgresql://127.0.0.1:1/nothing")
    assert done.returncode == 4
    assert done.stderr.startswith("spanfold: Postgres can't be used: ")
    assert shell.state is None
    assert shell("down").stdout == f"Nothing is running in {shell.home}.\n"


def test_in_the_foreground_it_runs_until_ctrl_c(
    shell: Shell, own_servers: dict[str, str], foreground: Callable[..., subprocess.Popen[str]]
) -> None:
    process = foreground(shell, "up", "--ephemeral", **own_servers)
    assert process.stdout
    shown = dict(process.stdout.readline().split(maxsplit=1) for _ in range(9))
    home = Path(shown["Logs"].strip()).parent
    family = Shell(home).family()
    assert family["supervisor"].pid == process.pid
    assert shown["Stop"].strip() == f"Ctrl-C, or spanfold down --home {home}"
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert not [name for name, each in family.items() if alive(each)]
    assert not home.exists()


def test_down_stops_workers_first_and_keeps_the_data(running: Shell) -> None:
    family = running.family()
    done = running("down")
    assert (done.returncode, done.stdout) == (0, f"Stopped the stack in {running.home}.\n")
    assert not [name for name, process in family.items() if alive(process)]
    again = running("down")
    assert (again.returncode, again.stdout) == (0, f"Nothing is running in {running.home}.\n")
    nothing = running("status", "--json")
    assert nothing.returncode == 3
    assert '"processes": []' in nothing.stdout


def test_nothing_outlives_a_killed_supervisor_and_workers_go_first(running: Shell) -> None:
    state = running.up_state
    family = running.family()
    family["supervisor"].kill()
    order = [name for name in end_order(family) if name in state.pids]
    assert order[:3] == ["otlp", "snapshots", "projector-1"]
    assert "Closing event loop" in (state.logs / "projector-1.log").read_text().splitlines()[-1]
    assert running("status").returncode == 3
