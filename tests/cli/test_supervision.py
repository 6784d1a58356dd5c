"""What `spanfold up` starts is kept alive, each program for itself; why one ended is shown as long as the home exists."""

import os
import signal
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from spanfold.embedded.process_ends import CRASH_LOOP_ENDS, process_records
from spanfold.embedded.process_identity import Identity
from spanfold.operations.process_urls import url_of
from tests.cli.shell import Shell
from tests.support.waiting import until

pytestmark = pytest.mark.timeout(300)

SERVERS_AND_DOORS = ("kafka", "postgres", "otlp")


def kill(shell: Shell, name: str) -> None:
    """Kill the program's process, and wait for the next one."""
    before = shell.up_state.processes[name]
    os.kill(before.pid, signal.SIGKILL)
    until(lambda: shell.up_state.processes[name] != before, f"another {name}")


def servers_and_doors(shell: Shell) -> dict[str, Identity]:
    return {name: shell.up_state.processes[name] for name in SERVERS_AND_DOORS}


def status_of(shell: Shell) -> Any:
    return orjson.loads(shell("status", "--json").stdout)


def healthz(shell: Shell, name: str) -> Any:
    url = until(lambda: url_of(shell.home, shell.up_state.processes[name]), f"the URL of {name}")
    return httpx.get(f"{url}/healthz", timeout=10).json()


def test_a_worker_that_is_killed_again_and_again_ends_nothing_else_and_is_shown(shell: Shell) -> None:
    shell.up()
    others = servers_and_doors(shell)
    for _ in range(CRASH_LOOP_ENDS + 4):
        kill(shell, "projector-1")
    assert servers_and_doors(shell) == others
    assert all(identity.process() for identity in others.values())

    status = status_of(shell)
    (end,) = status["ends"]
    assert (end["name"], end["manner"], end["incarnations"]) == ("projector-1", "SIGKILL", CRASH_LOOP_ENDS + 5)
    loop = f"projector-1 has ended {CRASH_LOOP_ENDS + 4} times within 10 minutes"
    assert status["state"] == "incomplete"
    assert [problem for problem in status["problems"] if problem.startswith(loop)]
    assert [problem for problem in healthz(shell, "projector-1")["problems"] if problem.startswith(loop)]
    assert healthz(shell, "otlp")["healthy"]
    assert loop in shell("doctor").stdout

    shell.json("workers", "restart", "projector-1")
    assert servers_and_doors(shell) == others
    well = status_of(shell)
    assert (well["state"], well["problems"], well["ends"][0]["ended_at"]) == ("running", [], end["ended_at"])

    assert shell("down").returncode == 0
    assert status_of(shell)["ends"][0]["ended_at"] == end["ended_at"]
    shell.up()
    assert shell.json("status")["ends"][0]["ended_at"] == end["ended_at"]


def test_restarting_workers_leaves_servers_and_doors_alone(running: Shell) -> None:
    before, others = running.up_state.processes, servers_and_doors(running)
    restarted = running.json("workers", "restart")["workers"]
    after = running.up_state
    assert restarted == {name: after.pids[name] for name in ("projector-1", "snapshots")}
    assert not {before[name].pid for name in restarted} & set(restarted.values())
    assert servers_and_doors(running) == others
    assert not {end["name"] for end in running.json("status")["ends"]} & set(restarted)

    nobody = running("workers", "restart", "kafka")
    assert nobody.returncode == 1
    assert nobody.stderr.endswith("expected one of projector-1, snapshots\n")


def test_without_a_stack_no_worker_is_restarted(shell: Shell) -> None:
    done = shell("workers", "restart")
    assert done.returncode == 3
    assert f"spanfold up --detach --home {shell.home}" in done.stderr


def test_on_a_new_home_a_worker_that_refuses_its_configuration_ends_the_start(
    shell: Shell, own_servers: dict[str, str]
) -> None:
    done = shell("up", "--detach", SPANFOLD_WORKER_HOST="192.0.2.1", **own_servers)
    assert done.returncode == 3
    assert "projector-1 ended before it was ready (exit code 3): " in done.stderr
    assert "192.0.2.1" in done.stderr
    assert shell.state is None


def test_on_a_home_that_has_worked_before_the_others_start_all_the_same(
    shell: Shell, own_servers: dict[str, str]
) -> None:
    shell.json("up", "--detach", **own_servers)
    assert shell("down").returncode == 0
    done = shell("up", "--detach", SPANFOLD_WORKER_HOST="192.0.2.1", **own_servers)
    assert done.returncode == 1
    assert "! projector-1 ended before it was ready (exit code 3): " in done.stderr
    assert healthz(shell, "otlp")["healthy"]
    otlp = shell.up_state.processes["otlp"]

    def last_end() -> object:
        return {record.name: record.last_end for record in process_records(shell.home)}["projector-1"]

    before = last_end()
    until(lambda: last_end() != before, "another try")
    assert shell.up_state.processes["otlp"] == otlp


BROKEN = "raise KeyError('the table of orders')\n"
MENDED = "from spanfold.projections.logs import PROJECTION\n"


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A folder for PYTHONPATH, with an installed package that brings a projection: spanfold's own one of logs."""
    metadata = tmp_path / "packages" / "orders-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: orders\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[spanfold.projections]\norders = orders:PROJECTION\n")
    (metadata.parent / "orders.py").write_text(MENDED)
    return metadata.parent


def test_a_projection_that_cannot_be_loaded_stops_no_server_and_no_door_and_is_mended_without_them(
    shell: Shell, own_servers: dict[str, str], package: Path
) -> None:
    environment = {**own_servers, "PYTHONPATH": str(package)}
    shell.json("up", "--detach", **environment)
    assert shell("down").returncode == 0
    (package / "orders.py").write_text(BROKEN)

    up = shell("up", "--detach", **environment)
    assert up.returncode == 1
    reason = (
        "entry point spanfold.projections: orders = orders:PROJECTION can't be loaded: KeyError: 'the table of orders'"
    )
    assert f"! projector-1 ended before it was ready (exit code 3): {reason} ({package}/orders.py, line 1)" in up.stderr
    assert healthz(shell, "otlp")["healthy"]
    others = shell.up_state.processes["otlp"]
    assert [problem for problem in status_of(shell)["problems"] if reason in problem]

    (package / "orders.py").write_text(MENDED)
    shell.json("workers", "restart", **environment)
    assert shell.json("status", **environment)["problems"] == []
    assert shell.up_state.processes["otlp"] == others


def test_on_a_new_home_a_projection_that_cannot_be_loaded_ends_the_start_with_its_line(
    shell: Shell, own_servers: dict[str, str], package: Path
) -> None:
    (package / "orders.py").write_text(BROKEN)
    done = shell("up", "--detach", **own_servers, PYTHONPATH=str(package))
    assert done.returncode == 3
    assert f"KeyError: 'the table of orders' ({package}/orders.py, line 1)" in done.stderr
    assert shell.state is None
