"""`spanfold otlp`, alone and as a part of `spanfold up`."""

import signal
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from tests.cli.shell import Shell

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def taken_port() -> Iterator[int]:
    """A port on which somebody else listens."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


def a_request(trace_id: str) -> dict[str, Any]:
    now = time.time_ns()
    span = {
        "traceId": trace_id,
        "spanId": "b7ad6b7169203331",
        "name": "GET /cart",
        "startTimeUnixNano": str(now - 1_000_000),
        "endTimeUnixNano": str(now),
    }
    service = {"key": "service.name", "value": {"stringValue": "shop"}}
    return {"resourceSpans": [{"resource": {"attributes": [service]}, "scopeSpans": [{"spans": [span]}]}]}


def url_in(status: dict[str, Any]) -> str:
    (found,) = [each["url"] for each in status["processes"] if each["name"] == "otlp"]
    return str(found)


def test_up_takes_spans_and_status_says_where(running: Shell) -> None:
    url = url_in(running.json("status"))
    assert httpx.get(f"{url}/healthz", timeout=10).json()["healthy"] is True
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    assert httpx.post(f"{url}/v1/traces", json=a_request(trace_id), timeout=10).status_code == 200
    query = f"SELECT service_name, operation_name, status, span_count FROM traces WHERE trace_id = '{trace_id}'"
    deadline = time.monotonic() + 60
    while not (rows := running.json("sql", query)):
        assert time.monotonic() < deadline, running("status").stdout
    assert rows == [{"service_name": "shop", "operation_name": "GET /cart", "status": "completed", "span_count": 1}]


def test_up_takes_another_port_where_its_own_is_taken(
    shell: Shell, running: Shell, own_servers: dict[str, str], taken_port: int
) -> None:
    up = shell.json("up", "--detach", SPANFOLD_OTLP_PORT=str(taken_port), **own_servers)
    assert up["otlp_endpoint"] == url_in(shell.json("status", **own_servers))
    assert not up["otlp_endpoint"].endswith(f":{taken_port}")
    assert httpx.get(f"{up['otlp_endpoint']}/healthz", timeout=10).status_code == 200
    assert up["otlp_endpoint"] in shell("status", **own_servers).stdout


def test_alone_it_says_where_it_listens_and_ends_with_0(
    running: Shell, foreground: Callable[..., Any], own_servers: dict[str, str]
) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        process = foreground(running, "otlp", "--host", "127.0.0.1", "--port", "0", **own_servers)
        said = process.stderr.readline()
        assert said.startswith("OTLP/HTTP at http://127.0.0.1:"), said
        url = said.split()[2].rstrip(",")
        unwell = httpx.get(f"{url}/healthz", timeout=30)
        assert unwell.status_code == 503, "its topics are not there yet"
        process.send_signal(number)
        process.communicate(timeout=30)
        assert process.returncode == 0


def test_an_address_that_is_taken_is_named(running: Shell, taken_port: int) -> None:
    done = running("otlp", "--port", str(taken_port))
    assert done.returncode == 3
    assert f"OTLP can't listen on 127.0.0.1:{taken_port}: Address already in use" in done.stderr


def test_without_a_kafka_it_says_what_to_set(shell: Shell) -> None:
    done = shell("otlp", "--port", "0")
    assert done.returncode == 3
    assert "SPANFOLD_KAFKA_BOOTSTRAP" in done.stderr
