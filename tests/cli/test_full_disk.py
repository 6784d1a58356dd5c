"""A disk that is full: servers pause, the rest goes on, and all is as before once there is room."""

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from tests.cli.shell import Shell, remove
from tests.support.processes import Forkserver
from tests.support.waiting import until

pytestmark = pytest.mark.timeout(600)

SIZE_MIB = 600
OUTAGE_S = 120.0


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A file system of its own, which only root can mount; it can be reached by the user that runs Postgres then."""
    disk = Path(tempfile.mkdtemp(prefix="spanfold-test-disk-"))
    disk.chmod(0o711)
    try:
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={SIZE_MIB}m,mode=711", "spanfold", disk],
            check=True,
            capture_output=True,
        )
    except (OSError, subprocess.CalledProcessError) as error:
        disk.rmdir()
        pytest.skip(f"no file system can be mounted here: {error}")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)
    disk.rmdir()


@pytest.fixture
def small_shell(forkserver: Forkserver, small_disk: Path) -> Iterator[Shell]:
    """Commands about a home of which both servers are on the small disk."""
    shell = Shell(small_disk / "home")
    shell.home.mkdir()
    (small_disk / "postgres").mkdir(mode=0o711)
    (shell.home / "postgres").symlink_to(small_disk / "postgres")  # where root would have made a folder elsewhere
    yield shell
    remove(shell)


def fill(disk: Path) -> Path:
    """Write a file until there is no room; returns it."""
    path, block = disk / "filler", bytes(2**20)
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(block):
            pass
    return path


def publish(url: str, trace_id: str) -> int:
    """Post a trace of 50 spans; returns the status."""
    now = time.time_ns()
    spans = [
        {
            "traceId": trace_id, "spanId": f"{number + 1:016x}", "name": "GET /cart",
            "startTimeUnixNano": str(now - 1_000_000), "endTimeUnixNano": str(now),
            "attributes": [{"key": "body", "value": {"stringValue": os.urandom(400).hex()}}],
        }
        for number in range(50)
    ]  # fmt: skip
    service = {"key": "service.name", "value": {"stringValue": "shop"}}
    body = {"resourceSpans": [{"resource": {"attributes": [service]}, "scopeSpans": [{"spans": spans}]}]}
    return httpx.post(f"{url}/v1/traces", json=body, timeout=60).status_code


def status_of(shell: Shell) -> Any:
    return orjson.loads(shell("status", "--json").stdout)


def test_a_full_disk_stops_nothing_for_good_and_loses_nothing(small_shell: Shell, small_disk: Path) -> None:
    shell = small_shell
    up = shell.json("up", "--detach")
    before = shell.up_state.processes
    traces = (f"{number:032x}" for number in range(1, 1000))
    acknowledged = [trace for trace in (next(traces), next(traces)) if publish(up["otlp_endpoint"], trace) == 200]
    assert len(acknowledged) == 2

    filler = fill(small_disk)

    def is_refused() -> bool:
        trace = next(traces)
        status = publish(up["otlp_endpoint"], trace)
        if status == 200:
            acknowledged.append(trace)
        return status == 503

    until(is_refused, "no room for another trace", within_s=OUTAGE_S)
    status = status_of(shell)
    assert status["state"] == "unreachable"
    assert [problem for problem in status["problems"] if f"free for {shell.home}: when that disk is full" in problem]

    filler.unlink()
    until(lambda: publish(up["otlp_endpoint"], next(traces)) == 200, "the first trace after it", within_s=OUTAGE_S)
    until(lambda: status_of(shell)["lag_total"] == 0, "all tables caught up", lambda: status_of(shell))
    quoted = ", ".join(f"'{trace}'" for trace in acknowledged)
    counted = shell.json("sql", f"SELECT count(*) AS n FROM spans WHERE trace_hex IN ({quoted})")
    assert counted == [{"n": 50 * len(acknowledged)}]
    after = shell.up_state.processes
    assert {name: after[name] for name in ("projector-1", "snapshots", "otlp")} == {
        name: before[name] for name in ("projector-1", "snapshots", "otlp")
    }
    (kafka,) = (end for end in status_of(shell)["ends"] if end["name"] == "kafka")
    assert "No space left" in kafka["error"] or "disk is full" in kafka["error"] or "ERROR" in kafka["error"]
