"""Requests to `spanfold otlp`, in front of a real Kafka; what it takes, a real worker folds into a real Postgres."""

import gzip

import httpx
import orjson
import pytest
from google.rpc.status_pb2 import Status

from spanfold.http.body_limits import MAX_EXPORT_BYTES
from spanfold.language.settings import Settings
from tests.producers.otlp.door import (
    JSON_TYPE,
    PROTOBUF_TYPE,
    Door,
    Run,
    a_span,
    an_export,
    as_protobuf,
    folded,
    partial_success,
    url_of,
)
from tests.support.databases import Ledger

WAYS = [(PROTOBUF_TYPE, False), (JSON_TYPE, False), (PROTOBUF_TYPE, True), (JSON_TYPE, True)]

SPANS = """
  SELECT span_id, parent_span_id, service_name, operation_name, kind, status, start_time, end_time, tags::text
    FROM spanfold.spans
   WHERE trace_id = %s
ORDER BY span_id
"""

TRACE = """
SELECT service_name, operation_name, status, start_time, end_time, duration_ms, tags::text, span_count
  FROM spanfold.traces
 WHERE trace_id = %s
"""


def test_every_way_of_writing_a_request_gives_the_same_rows(
    run: Run, door: Door, stack_settings: Settings, ledger: Ledger
) -> None:
    tags = [{"key": "cart", "value": {"intValue": "7"}}, {"key": "who", "value": {"stringValue": "Zoë"}}]
    spans = [a_span(number=1, attributes=tags), a_span(number=2, kind=3, status={"code": 2, "message": "out of stock"})]
    requests = [
        an_export(*(span | {"traceId": f"{trace:032x}"} for span in spans)) for trace in range(1, len(WAYS) + 1)
    ]
    for request, (content_type, compressed) in zip(requests, WAYS, strict=True):
        for _ in range(2):  # the second time it is a retry
            answer = door.send(request, content_type, compressed)
            assert (answer.status_code, answer.headers["content-type"]) == (200, content_type)
            assert answer.content == (b"{}" if content_type == JSON_TYPE else b"")
    folded(run, stack_settings, ledger, 2 * len(WAYS) * 4)

    counted = dict(ledger.execute("SELECT verdict, count(*) FROM spanfold.verdicts GROUP BY verdict").fetchall())
    assert counted == {"accepted": 16, "duplicate": 16}
    found = [
        (ledger.execute(SPANS, [f"{trace:032x}"]).fetchall(), ledger.execute(TRACE, [f"{trace:032x}"]).fetchall())
        for trace in range(1, len(WAYS) + 1)
    ]
    rows, (trace,) = found[0]
    assert [row[:6] for row in rows] == [
        (f"{1:016x}", None, "checkout", "operation 1", "server", "unset"),
        (f"{2:016x}", f"{1:016x}", "checkout", "operation 2", "client", "error"),
    ]
    assert orjson.loads(rows[0][-1]) == {"cart": 7, "who": "Zoë"}
    assert (trace[:3], trace[-1]) == (("checkout", "operation 1", "completed"), 2)
    assert found == found[:1] * len(WAYS)


@pytest.mark.parametrize("content_type", [PROTOBUF_TYPE, JSON_TYPE])
def test_invalid_spans_are_named_and_the_others_go_in(
    run: Run, door: Door, stack_settings: Settings, ledger: Ledger, content_type: str
) -> None:
    large = a_span(number=5, name="large", attributes=[{"key": "k", "value": {"stringValue": "x" * 1_100_000}}])
    wrong = [a_span(traceId="abcd", name="wrong"), a_span(number=6, endTimeUnixNano="0"), large | {"parentSpanId": ""}]
    answer = door.send(an_export(a_span(), *wrong, a_span(number=2)), content_type)
    assert answer.status_code == 200
    said = answer.json()["partialSuccess"] if content_type == JSON_TYPE else partial_success(answer)
    assert said["rejectedSpans"] == "3"
    assert "span 'wrong': trace_id has 2 bytes, not 16; span 'operation 6': " in said["errorMessage"]
    assert "span 'large': an event of 1,1" in said["errorMessage"]
    folded(run, stack_settings, ledger, 4)
    assert ledger.execute("SELECT count(*) FROM spanfold.spans").fetchone() == (2,)
    assert door.metrics()["spanfold_otlp_spans_accepted_total"] == 2
    assert door.metrics()["spanfold_otlp_spans_rejected_total"] == 3


def test_what_can_t_be_taken_is_answered_in_the_senders_encoding(door: Door) -> None:
    malformed = door.post(b"\x0a\xff", PROTOBUF_TYPE)
    assert (malformed.status_code, malformed.headers["content-type"]) == (400, PROTOBUF_TYPE)
    assert "not a ExportTraceServiceRequest in protobuf" in Status.FromString(malformed.content).message

    malformed = door.post(b"{", JSON_TYPE)
    assert (malformed.status_code, malformed.headers["content-type"]) == (400, JSON_TYPE)
    assert "in OTLP's JSON" in malformed.json()["message"]

    assert door.post(b"\x1f\x8b", PROTOBUF_TYPE, "gzip").status_code == 400
    assert door.post(b"{}", "text/plain").status_code == 415
    assert door.post(b"{}", JSON_TYPE, "br").status_code == 415
    for body, compression in (
        (bytes(MAX_EXPORT_BYTES + 1), ""),
        (gzip.compress(bytes(MAX_EXPORT_BYTES + 1)), "gzip"),
    ):
        answer = door.post(body, PROTOBUF_TYPE, compression)
        assert answer.status_code == 413
        assert "send less in one request" in Status.FromString(answer.content).message
    assert "Retry-After" not in answer.headers
    counted = {name: count for name, count in door.metrics().items() if name.startswith("spanfold_otlp_requests_total")}
    assert counted == {f'spanfold_otlp_requests_total{{status="{status}"}}': count
                       for status, count in ((400, 3), (415, 2), (413, 2))}  # fmt: skip


def test_a_request_larger_than_the_publishers_buffer_goes_in(door: Door, ledger: Ledger) -> None:
    spans = [a_span(number=number) | {"name": "x"} for number in range(2, 110_002)]
    body = as_protobuf(an_export(*spans))
    assert len(body) < MAX_EXPORT_BYTES
    answer = door.post(body)
    assert (answer.status_code, partial_success(answer)) == (200, {})
    assert door.metrics()["spanfold_otlp_spans_accepted_total"] == 110_000


def test_an_empty_request_is_fine(door: Door) -> None:
    assert door.post(b"").status_code == 200
    assert door.post(b"{}", JSON_TYPE).json() == {}


def test_it_is_well_while_kafka_has_the_topic(door: Door) -> None:
    well = httpx.get(f"{door.url}/healthz", timeout=10)
    assert (well.status_code, well.json()) == (
        200, {"healthy": True, "problems": [], "pid": door.command.process.pid}
    )  # fmt: skip


def test_without_the_topic_it_is_unwell_and_asks_to_try_again(
    run: Run, kafka_bootstrap: str, stack_settings: Settings
) -> None:
    command = run(stack_settings.model_copy(update={"topic_prefix": "nobody.made."}), "otlp", "--port", "0")
    door = Door(command, url_of(command))
    unwell = httpx.get(f"{door.url}/healthz", timeout=10)
    assert unwell.status_code == 503
    assert "topic nobody.made.spanfold.traces can't be used" in unwell.json()["problems"][0]
    answer = door.send(an_export(a_span()))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    assert "nobody.made.spanfold.traces" in Status.FromString(answer.content).message
