"""OTLP's front door as a process, and requests made of plain dictionaries."""

import gzip
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx
import orjson
from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from spanfold.http.process_urls import url_file
from spanfold.language.settings import Settings
from spanfold.producers.otlp.bodies import JSON
from tests.support.databases import Ledger
from tests.support.waiting import until
from tests.support.workers import Worker

PROTOBUF_TYPE, JSON_TYPE = "application/x-protobuf", "application/json"

Export = dict[str, Any]
"""A request as OTLP's JSON has it."""

Run = Callable[..., Worker]
"""Starts `spanfold <words>`: `run(settings, *words)`."""


def url_of(process: Worker) -> str:
    """Where it serves, as soon as it says so."""
    left = url_file(process.settings.home, process.process.pid)

    def url() -> str:
        process.check()
        return left.read_text() if left.exists() else ""

    return until(url, "its URL", process.output)


@dataclass(frozen=True)
class Door:
    """A front door that listens."""

    command: Worker
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


def folded(run: Run, settings: Settings, ledger: Ledger, verdicts: int) -> Worker:
    """Fold with a worker until so many records have their verdict, and not one more."""
    worker = run(settings, "worker", "projector")

    def count() -> int:
        worker.check()
        ((count,),) = ledger.execute("SELECT count(*) FROM spanfold.verdicts").fetchall()
        return int(count)

    until(lambda: count() >= verdicts, f"{verdicts} verdicts", count)
    assert count() == verdicts
    return worker
