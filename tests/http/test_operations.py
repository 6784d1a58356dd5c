"""The routes under /operations, on a real Kafka and Postgres."""

import json
import time
from typing import Any

import httpx
import psycopg
import pytest
from confluent_kafka import Producer

from spanfold.kafka.client import kafka_config
from spanfold.language.events import SpanRecorded, TraceCreated
from spanfold.language.records import headers_of
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


def test_parked_records_are_listed_shown_and_settled(api: str, stack_settings: Settings, ledger: Ledger) -> None:
    publish_raw(stack_settings, b"t-1", b"\0\0\0\0\7?")
    with httpx.Client(base_url=api, timeout=100) as client:
        until(lambda: client.get("/operations/parked").json()["total"] == 1, "the parked record")
        (record,) = client.get("/operations/parked", params={"reason": "unknown_schema", "topic": "traces"}).json()[
            "records"
        ]
        assert client.get("/operations/parked", params={"aggregate_id": "another"}).json() == {
            "records": [],
            "total": 0,
        }
        shown = client.get("/operations/parked/show", params={"position": record["position"]}).json()
        assert (shown["payload"], shown["decoded"]["schema_id"]) == ("00000000073f", 7)

        tried = lines(client, "/operations/parked/retry", {"reason": "unknown_schema", "why": "upgraded"})
        assert tried[:-1] == [{"done": done, "total": 1, "unit": "records"} for done in (0, 1)]
        (still,) = tried[-1]["result"]["still_parked"]
        assert (still["position"], still["last_tried_offset"]) == (record["position"], record["kafka_offset"] + 1)
        done = lines(client, "/operations/parked/discard", {"positions": [record["position"]]})
        assert done[-1]["result"]["discarded"] == 1
        assert client.get("/operations/parked").json()["total"] == 0

        for wrong, status in (({}, 422), ({"positions": ["traces/0"]}, 422), ({"positions": ["traces/0@999"]}, 404)):
            assert client.post("/operations/parked/discard", json=wrong).status_code == status, wrong


def lines(client: httpx.Client, path: str, fields: dict[str, Any]) -> list[dict[str, Any]]:
    """The JSON lines that a long operation answers."""
    with client.stream("POST", path, json=fields) as answer:
        assert answer.headers["content-type"] == "application/x-ndjson", answer.read()
        return [json.loads(line) for line in answer.iter_lines()]


def publish_raw(settings: Settings, key: bytes, value: bytes) -> None:
    """A record of traces with these bytes, with the headers of a span."""
    event = SpanRecorded(
        aggregate_id=key.decode(), occurred_at=time.time_ns() // 1000, source="test", span_id="1", parent_span_id=None,
        service_name="shop", operation_name="pay", start_time=1, end_time=1,
    )  # fmt: skip
    producer = Producer({**kafka_config(settings), "partitioner": "murmur2_random"})
    producer.produce(f"{settings.topic_prefix}spanfold.traces", value, key, headers=headers_of(event))
    assert producer.flush(60) == 0
