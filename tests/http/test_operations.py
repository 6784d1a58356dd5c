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
from spanfold.language.ids import trace_hex
from spanfold.language.records import headers_of
from spanfold.language.settings import Settings
from spanfold.producers.publisher import TelemetryPublisher
from tests.support.databases import Ledger
from tests.support.waiting import until

pytestmark = pytest.mark.timeout(600)


def publish_traces(settings: Settings, ledger: Ledger, *trace_ids: str) -> None:
    """Publish the start of each trace, and wait until the tables have it."""
    now = time.time_ns() // 1000
    with TelemetryPublisher(settings, block_timeout_s=60) as publisher:
        for trace_id in trace_ids:
            started: dict[str, Any] = {"service_name": "shop", "operation_name": "pay", "start_time": now}
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


def test_a_trace_is_shown_and_erased_by_its_trace_hex(api: str, stack_settings: Settings, ledger: Ledger) -> None:
    publish_traces(stack_settings, ledger, "order-1", "order-2")
    with httpx.Client(base_url=api, timeout=100) as client:
        query = {"query_type": "GetTrace", "query_data": {"trace_id": trace_hex("order-1")}}
        assert client.post("/queries", json=query).json()["result"]["id"] == "order-1"
        shown = client.get("/operations/trace", params={"trace_id": trace_hex("order-1")}).json()
        assert shown["trace"]["trace_id"] == "order-1"
        for erased_before in (False, True):
            report = client.post("/operations/erase", json={"trace_id": trace_hex("order-1")}).json()
            assert (report["trace_id"], report["erased_before"]) == ("order-1", erased_before)
        assert ledger.execute("SELECT trace_id FROM spanfold.traces").fetchall() == [("order-2",)]


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


def test_a_projection_is_verified_rebuilt_and_rolled_back(api: str, stack_settings: Settings, ledger: Ledger) -> None:
    publish_traces(stack_settings, ledger, "t-1", "t-2")
    with httpx.Client(base_url=api, timeout=200) as client:
        verified = lines(client, "/operations/verify", {"projection": "traces"})
        assert {"step": "loading"} in verified
        assert {"done": 2, "total": 2, "unit": "records"} in verified
        assert verified[-1]["result"]["equal"]
        rebuilt = lines(client, "/operations/rebuild", {"projection": "traces", "workers": 1})[-1]["result"]
        assert (rebuilt["generation"], rebuilt["replaced"], rebuilt["equal"]) == (2, 1, True)
        back = lines(client, "/operations/rollback", {"projection": "traces"})[-1]["result"]
        assert (back["generation"], back["replaced"]) == (1, 2)
        states = {row["generation"]: row["state"] for row in client.get("/operations/projections").json()
                  if row["projection"] == "traces"}  # fmt: skip
        assert states == {1: "live", 2: "previous"}

        ledger.execute("DELETE FROM traces_g1.traces WHERE trace_id = 't-1'")
        differing = lines(client, "/operations/verify", {"projection": "traces"})[-1]["result"]
        assert not differing["equal"]
        refused = lines(client, "/operations/rebuild", {"projection": "traces"})[-1]["problem"]
        assert (refused["title"], refused["status"]) == ("RowsDiffer", 500)
        unknown = client.post("/operations/verify", json={"projection": "nothing"})
        assert (unknown.status_code, unknown.headers["content-type"]) == (422, "application/problem+json")


def test_an_operation_whose_client_has_gone_ends(api: str, stack_settings: Settings, ledger: Ledger) -> None:
    publish_traces(stack_settings, ledger, "t-1")
    with psycopg.connect(str(stack_settings.postgres_dsn)) as reader:
        # who has read the views is waited for, for as long as it likes
        reader.execute("SELECT count(*) FROM spanfold.traces")
        with (
            httpx.Client(base_url=api, timeout=200) as client,
            client.stream("POST", "/operations/rebuild", json={"projection": "traces"}) as answer,
        ):
            waiting = next(line for line in answer.iter_lines() if "waiting_for" in line)
            assert "idle in transaction" in waiting or "pid" in waiting, waiting

        def states() -> list[str]:
            rows = ledger.execute("SELECT state FROM spanfold_core.generations WHERE projection = 'traces' ORDER BY 1")
            return [state for (state,) in rows]

        with httpx.Client(base_url=api, timeout=200) as client:
            until(lambda: refusal(client) is None, "nobody is at work on traces", lambda: refusal(client))
        assert states() == ["following", "live"]
    with httpx.Client(base_url=api, timeout=200) as client:
        assert lines(client, "/operations/rebuild", {"projection": "traces"})[-1]["result"]["generation"] == 2


def refusal(client: httpx.Client) -> str | None:
    """Why nobody else may work on traces now."""
    answer = client.get("/operations/rebuild/preview", params={"projection": "traces"})
    return None if answer.status_code == 200 else str(answer.json()["detail"])


def test_what_is_asked_and_what_is_pruned(api: str, stack_settings: Settings, ledger: Ledger) -> None:
    publish_traces(stack_settings, ledger, "t-1")
    with httpx.Client(base_url=api, timeout=200) as client:
        status = client.get("/operations/status").json()
        assert (status["state"], status["lag_total"]) == ("running", 0), status
        trace = client.get("/operations/trace", params={"trace_id": "t-1", "history": True}).json()
        assert [step["event_type"] for step in trace["history"]] == ["TraceCreated"]
        assert client.get("/operations/trace", params={"trace_id": "t-2"}).status_code == 404

        event = {"event_type": "TraceCompleted", "aggregate_id": "t-1", "event_data": {"end_time": 1}}
        published = client.post("/operations/publish", json={"events": [event], "wait": True}).json()
        assert (published["delivered"], published["visible"]) == (1, True)
        refused = client.post("/operations/publish", json={"events": [event, {"event_type": "Nothing"}]})
        assert refused.status_code == 422
        assert "event 2: " in refused.json()["detail"]

        assert client.post("/operations/migrate", json={}).json()["done"] == []
        plan = lines(client, "/operations/prune", {"dry_run": True})[-1]["result"]
        assert {part["kind"] for part in plan["parts"]} == {"log", "journal", "table"}
        assert all(part["held_by"] == "no retention set" for part in plan["parts"] if part["kind"] == "log"), plan
        past = lines(
            client, "/operations/as-of", {"into": "past", "moment": "2026-11-23T07:00:00Z", "projections": ["traces"]}
        )
        assert past[-1]["result"]["records"] == {"traces": 0}
        assert client.post("/operations/as-of/drop", json={"schema": "past"}).json()["dropped"] == ["traces"]
        not_folded = lines(client, "/operations/snapshot", {"types": ["trace"]})[-1]["problem"]
        assert (not_folded["title"], not_folded["status"]) == ("Misconfigured", 500)


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
    producer.produce(f"{settings.topic_prefix}spanfold.traces", value, key, headers=[*headers_of(event)])
    assert producer.flush(60) == 0
