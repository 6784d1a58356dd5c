"""What OTLP's tests share: `spanfold` commands as processes, requests made of plain dictionaries, and rows to look at."""

import gzip
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import orjson
import psycopg
import pytest
from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from spanfold.http.process_urls import url_file
from spanfold.language.settings import Settings
from spanfold.language.topics import TopicOnBroker
from spanfold.producers.otlp.bodies import JSON

PATIENCE_S = 60
"""Longer than anything here takes on a busy machine: only a test that fails waits so long."""

PROTOBUF_TYPE, JSON_TYPE = "application/x-protobuf", "application/json"

Export = dict[str, Any]
"""A request as OTLP's JSON has it."""


def until(condition: Callable[[], Any], what: str, seen: Callable[[], object] = lambda: "") -> Any:
    """Wait until the condition holds and return what it said; fails saying what was seen last."""
    deadline = time.monotonic() + PATIENCE_S
    while not (said := condition()):
        assert time.monotonic() < deadline, f"{what} did not come true in {PATIENCE_S} s; seen: {seen()}"
        time.sleep(0.05)
    return said


@dataclass
class Command:
    """`spanfold …` as a process, with what it wrote."""

    settings: Settings
    words: tuple[str, ...]
    folder: Path
    process: subprocess.Popen[bytes] = field(init=False)

    def __post_init__(self) -> None:
        self.folder.mkdir()
        environment = os.environ | {
            f"SPANFOLD_{name.upper()}": str(value) for name, value in self.settings.model_dump().items()
        }
        with (self.folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "spanfold", *self.words],
                env=environment, cwd=self.folder, stdout=log, stderr=log,
            )  # fmt: skip

    def said(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def url(self) -> str:
        """Where it serves, as soon as it says so."""
        left = url_file(self.settings.home, self.process.pid)

        def found() -> str:
            assert self.process.poll() is None, f"it ended:\n{self.said()}"
            return left.read_text() if left.exists() else ""

        return str(until(found, "its URL", self.said))

    def stop(self, within_s: float = 60) -> int:
        """SIGTERM; returns the exit code."""
        self.process.terminate()
        return self.process.wait(within_s)


Run = Callable[..., Command]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """Run `spanfold <words>` with these settings, in a home of this test; what still runs at the end is killed."""
    commands: list[Command] = []

    def run(settings: Settings, *words: str) -> Command:
        made = settings.model_copy(update={"home": tmp_path / "home", "session_timeout_s": 6.0})
        commands.append(Command(made, words, tmp_path / f"command {len(commands)}"))
        return commands[-1]

    yield run
    for each in commands:
        each.process.kill()
        each.process.wait(10)


@dataclass(frozen=True)
class Door:
    """A front door that listens."""

    command: Command
    url: str

    def post(self, body: bytes, content_type: str = PROTOBUF_TYPE, content_encoding: str = "") -> httpx.Response:
        headers = {"Content-Type": content_type}
        if content_encoding:
            headers["Content-Encoding"] = content_encoding
        return httpx.post(f"{self.url}/v1/traces", content=body, headers=headers, timeout=30)

    def send(self, request: Export, content_type: str = PROTOBUF_TYPE, compressed: bool = False) -> httpx.Response:
        body = as_protobuf(request) if content_type == PROTOBUF_TYPE else orjson.dumps(request)
        return self.post(gzip.compress(body) if compressed else body, content_type, "gzip" if compressed else "")

    def metrics(self) -> dict[str, float]:
        """Its metrics, by name and labels as Prometheus writes them."""
        lines = httpx.get(f"{self.url}/metrics", timeout=10).text.splitlines()
        return {name: float(value) for name, _, value in (each.rpartition(" ") for each in lines if each[0] != "#")}


@pytest.fixture
def door(run: Run, stack_settings: Settings, topics: dict[str, TopicOnBroker]) -> Door:
    """`spanfold otlp` on a free port, in front of this test's topics."""
    command = run(stack_settings, "otlp", "--port", "0")
    return Door(command, command.url())


def an_export(*spans: Export, **resource: str) -> Export:
    """A request with these spans of one service."""
    resource = resource or {"service.name": "checkout"}
    attributes = [{"key": key, "value": {"stringValue": value}} for key, value in resource.items()]
    return {"resourceSpans": [{"resource": {"attributes": attributes}, "scopeSpans": [{"spans": list(spans)}]}]}


def a_span(trace: int = 1, number: int = 1, **changes: Any) -> Export:
    """A span of 5 ms that ended now; number 1 is its trace's root, and the others' parent."""
    end = time.time_ns()
    made = {
        "traceId": f"{trace:032x}",
        "spanId": f"{number:016x}",
        "name": f"operation {number}",
        "kind": 2,
        "startTimeUnixNano": str(end - 5_000_000),
        "endTimeUnixNano": str(end),
    }
    if number > 1:
        made["parentSpanId"] = f"{1:016x}"
    return made | changes


def as_message(request: Export) -> ExportTraceServiceRequest:
    message = ExportTraceServiceRequest()
    JSON.read(orjson.dumps(request), message)
    return message


def as_protobuf(request: Export) -> bytes:
    return as_message(request).SerializeToString()


def partial_success(response: httpx.Response) -> dict[str, Any]:
    """What a protobuf answer says of spans that were rejected; empty when none was."""
    said = json_format.MessageToDict(ExportTraceServiceResponse.FromString(response.content))
    return dict(said.get("partialSuccess", {}))


def folded(run: Run, settings: Settings, ledger: psycopg.Connection[Any], verdicts: int) -> Command:
    """Fold with a worker until so many records have their verdict, and not one more."""
    worker = run(settings, "worker", "projector")

    def counted() -> int:
        assert worker.process.poll() is None, f"the worker ended:\n{worker.said()}"
        found = ledger.execute("SELECT count(*) FROM spanfold.verdicts").fetchone()
        return int(found[0]) if found else 0

    until(lambda: counted() >= verdicts, f"{verdicts} verdicts", counted)
    assert counted() == verdicts
    return worker
