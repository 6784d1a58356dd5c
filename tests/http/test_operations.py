"""The routes under /operations, on a real Kafka and Postgres."""

import time
from typing import Any

import httpx
import psycopg
import pytest

from spanfold.language.events import TraceCreated
from spanfold.language.settings import Settings
from spanfold.producers.publisher import TelemetryPublisher
from tests.stream_processors.conftest import until

Ledger = psycopg.Connection[Any]

pytestmark = pytest.mark.timeout(600)


def publish_traces(settings: Settings, ledger: Ledger, *trace_ids: str) -> None:
    """Publish the start of each trace, and wait until the tables have it."""
    now = time.time_ns() // 1000
    with TelemetryPublisher(settings, block_timeout_s=60) as publisher:
        for trace_id in trace_ids:
            started = {"service_name": "shop", "operation_name": "pay", "start_time": now}
            publisher.publish(TraceCreated(aggregate_id=trace_id, occurred_at=now, source="test", **started))
        assert publisher.flush(60) == 0
    query = "SELECT count(*) FROM spanfold.traces WHERE trace_id = ANY (%s)"
    until(lambda: ledger.execute(query, (list(trace_ids),)).fetchone() == (len(trace_ids),), "the traces")


def test_a_trace_is_erased(api: str, stack_settings: Settings, ledger: Ledger) -> None:
    publish_traces(stack_settings, ledger, "t-1", "t-2")
    with httpx.Client(base_url=api, timeout=100) as client:
        done = client.post("/operations/erase", json={"trace_id": "t-1", "why": "ticket 4711"})
        assert done.status_code == 200, done.text
        report = done.json()
        assert (report["erased_before"], report["rows"]["traces"]) == (False, 1)
        assert ledger.execute("SELECT trace_id FROM spanfold.traces").fetchall() == [("t-2",)]
        again = client.post("/operations/erase", json={"trace_id": "t-1"}).json()
        assert again == {**report, "erased_before": True, "records": again["records"], "rows": again["rows"]}

        unknown = client.post("/operations/erase", json={"trace_id": "nobody"})
        assert (unknown.status_code, unknown.json()["title"]) == (404, "NotFound"), unknown.text
        wrong = client.post("/operations/erase", json={"trace": "t-2", "timeout_s": "soon"})
        assert wrong.status_code == 422
        assert {"trace_id", "trace", "timeout_s"} == {part.split(":")[0] for part in wrong.json()["detail"].split("; ")}
        sent_by_a_page = client.post("/operations/erase", content='{"trace_id": "t-2"}')
        assert sent_by_a_page.status_code == 415
        assert ledger.execute("SELECT trace_id FROM spanfold.traces").fetchall() == [("t-2",)]

        described = client.get("/operations").json()["erase"]
        assert (described["method"], described["request"]["required"]) == ("POST", ["trace_id"])
