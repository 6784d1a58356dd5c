import math
from collections.abc import Callable
from typing import Any

import pytest

from spanfold.language.errors import InvalidInput
from spanfold.language.event_json import event_from_json, event_to_json
from spanfold.language.events import (
    Event,
    LogRecorded,
    MetricUpdated,
    TraceCompleted,
    TraceCreated,
    TraceFailed,
    series_id,
)
from spanfold.schemas.codec import Codec

NOW = 1_795_000_000_000_000
NOW_TEXT = "2026-11-18T11:06:40Z"

CREATED: dict[str, Any] = {
    "event_type": "TraceCreated",
    "aggregate_id": "t-1",
    "event_data": {"service_name": "shop", "operation_name": "GET /cart"},
}
SPAN_DATA: dict[str, Any] = {
    "span_id": "a",
    "service_name": "shop",
    "operation_name": "SELECT",
    "start_time": NOW,
    "end_time": NOW + 5,
}
SPAN: dict[str, Any] = {"event_type": "SpanRecorded", "aggregate_id": "t-1", "event_data": SPAN_DATA}


POINT: dict[str, Any] = {
    "event_type": "MetricUpdated",
    "event_data": {"name": "queue.length", "service_name": "shop", "value": 7, "labels": {"queue": "mail"}},
}
LOG: dict[str, Any] = {"event_type": "LogRecorded", "event_data": {"service_name": "shop", "body": "boom"}}


def deep(levels: int) -> Any:
    """A list in a list, and so on: so many."""
    value: Any = []
    for _ in range(levels - 1):
        value = [value]
    return value


def read(obj: Any) -> Event:
    return event_from_json(obj, NOW, "test")


def test_the_shortest_event_takes_the_rest_from_its_surroundings() -> None:
    assert read(CREATED) == TraceCreated(
        aggregate_id="t-1",
        occurred_at=NOW,
        source="test",
        service_name="shop",
        operation_name="GET /cart",
        start_time=NOW,
    )


def test_a_point_belongs_to_the_series_that_its_data_make() -> None:
    point = read(POINT)
    assert point == MetricUpdated(
        aggregate_id=series_id({"service.name": "shop"}, "", "queue.length", {"queue": "mail"}),
        occurred_at=NOW,
        source="test",
        name="queue.length",
        service_name="shop",
        value=7,
        labels={"queue": "mail"},
    )
    assert read({**POINT, "aggregate_id": "of my own"}).aggregate_id == "of my own"
    assert read({**POINT, "occurred_at": NOW_TEXT}).event_id == point.event_id


@pytest.mark.parametrize(("text", "value"), [("NaN", "nan"), ("Infinity", "inf"), ("-Infinity", "-inf")])
def test_what_json_has_no_number_for_is_text(text: str, value: str) -> None:
    point = read({**POINT, "event_data": {**POINT["event_data"], "value": text}})
    assert isinstance(point, MetricUpdated)
    assert repr(point.value) == value
    assert event_to_json(point)["event_data"]["value"] == text


def test_a_point_with_a_resource_and_a_scope_belongs_to_their_series() -> None:
    data = {
        "resource": {"b": {"c": None}, "a": 1},
        "scope_name": "s",
        "scope_version": "2",
        "scope_attributes": {"x": [1]},
    }
    point = read({**POINT, "event_data": {**POINT["event_data"], **data}})
    series = series_id({"a": 1, "b": {"c": None}}, "s", "queue.length", {"queue": "mail"}, "2", {"x": [1]})
    assert point.aggregate_id == series


def test_a_log_record_belongs_to_its_trace_or_else_to_its_service() -> None:
    assert read(LOG) == LogRecorded(
        aggregate_id="shop", occurred_at=NOW, source="test", service_name="shop", body="boom"
    )
    traced = {**LOG, "event_data": {**LOG["event_data"], "trace_id": "t-1"}}
    assert read(traced).aggregate_id == "t-1"
    assert read({**traced, "aggregate_id": "t-1"}) == read(traced)


@pytest.mark.parametrize("body", [None, 7, ["a", {"b": None}], deep(64)])
def test_a_log_record_has_any_body_that_fits(body: Any) -> None:
    event = read(_log(body=body))
    assert isinstance(event, LogRecorded)
    assert event.body == body
    Codec().encode(event.event_type, event.as_fields())
    assert event_from_json(event_to_json(event), 0, "") == event


def test_log_records_are_equal_when_all_that_they_say_is() -> None:
    changes: list[dict[str, Any]] = [
        {}, {"body": "bang"}, {"body": ["boom"]}, {"severity_number": 9}, {"severity_text": "E"}, {"event_name": "e"},
        {"trace_id": "t"}, {"span_id": "s"}, {"tags": {"a": None}}, {"resource": {"a": 1}}, {"scope_name": "s"}, {"ordinal": 1},
    ]  # fmt: skip
    assert len({read(_log(**change)).event_id for change in changes}) == len(changes)
    assert read(_log(observed_time=7)).event_id == read(LOG).event_id
    assert read(_log(tags={"a": 1, "b": 2})).event_id == read(_log(tags={"b": 2, "a": 1})).event_id


@pytest.mark.parametrize("event_type", ["TraceCompleted", "TraceFailed"])
def test_an_end_is_when_it_occurred(event_type: str) -> None:
    data = {"error": "declined"} if event_type == "TraceFailed" else {}
    ended = read({"event_type": event_type, "aggregate_id": "t", "occurred_at": NOW_TEXT, "event_data": data})
    assert isinstance(ended, TraceCompleted | TraceFailed)
    assert ended.end_time == ended.occurred_at == NOW


def test_an_event_occurred_when_its_data_says_so() -> None:
    created = {**CREATED, "event_data": {**CREATED["event_data"], "start_time": NOW - 7}}
    assert read(created).occurred_at == NOW - 7
    assert read(SPAN).occurred_at == NOW + 5
    assert event_from_json(SPAN, NOW + 999, "test").event_id == read(SPAN).event_id


@pytest.mark.parametrize(
    ("text", "us"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1969-12-31T23:59:59.999999Z", -1),
        ("2026-11-18T11:06:40.5Z", NOW + 500_000),
        ("2026-11-18T13:06:40.123456789+02:00", NOW + 123_456),
        ("2026-11-18t11:06:40z", NOW),
        ("0001-01-01T00:00:00Z", -62_135_596_800_000_000),
        ("2026-11-18T11:06:40", NOW),
        ("2026-11-18 11:06:40.000001", NOW + 1),
        ("2026-11-18", 1_794_960_000_000_000),
        ("2026-11-18 11:06:40.000001+00", NOW + 1),
        ("2026-11-18 16:36:40+0530", NOW),
        (NOW, NOW),
        (str(NOW), NOW),
    ],
)
def test_times_are_rfc_3339_or_microseconds(text: str | int, us: int) -> None:
    assert read({**CREATED, "occurred_at": text}).occurred_at == us


@pytest.mark.parametrize(
    "time",
    [
        "yesterday",
        "2026-11",
        "2026-11-18T11",
        "2026-02-30T00:00:00Z",
        1.5,
        True,
        None,
        10**20,
        [],
        "0001-01-01T00:00:00+01:00",
    ],
)
def test_what_is_no_time_is_refused(time: Any) -> None:
    with pytest.raises(InvalidInput, match=r"occurred_at: .*(a time such as|is not a time)"):
        read({**CREATED, "occurred_at": time})


@pytest.mark.parametrize(("unit", "divisor"), [("s", 10**6), ("ms", 10**3), ("ns", 10**-3)])
@pytest.mark.parametrize("written", [int, str])
def test_an_integer_of_another_unit_is_named(unit: str, divisor: float, written: Callable[[int], Any]) -> None:
    number = NOW * 1000 if unit == "ns" else int(NOW // divisor)
    with pytest.raises(InvalidInput, match=rf"start_time: {number} looks like {unit} since 1970: pass µs"):
        read({**CREATED, "event_data": {**CREATED["event_data"], "start_time": written(number)}})


def _span(**changes: Any) -> dict[str, Any]:
    return {**SPAN, "event_data": {**SPAN_DATA, **changes}}


def _point(**changes: Any) -> dict[str, Any]:
    data = {name: value for name, value in {**POINT["event_data"], **changes}.items() if value != ...}
    return {**POINT, "event_data": data}


def _log(**changes: Any) -> dict[str, Any]:
    return {**LOG, "event_data": {**LOG["event_data"], **changes}}


def _histogram(**changes: Any) -> dict[str, Any]:
    shape = {"kind": "histogram", "temporality": "delta", "count": 3, "bounds": [1, 2], "bucket_counts": [1, 2, 0]}
    return _point(**{"value": ..., **shape, **changes})


def test_a_histogram_may_have_no_buckets() -> None:
    read(_histogram())
    read(_histogram(bounds=[], bucket_counts=[]))


@pytest.mark.parametrize(
    ("obj", "complaint"),
    [
        ([], r"event: expected an object, got \[\]"),
        ({"event_type": "TraceCreated"}, "event: missing aggregate_id"),
        (
            {**CREATED, "event_type": "TraceCreatd"},
            r"unknown type 'TraceCreatd' \(did you mean TraceCreated\?\); use one of",
        ),
        ({**CREATED, "event_type": ["TraceCreated"]}, "event_type: unknown type"),
        ({**CREATED, "aggregate_id": ""}, "aggregate_id: expected 1 to 512 characters, got 0"),
        ({**CREATED, "aggregate_id": "x" * 513}, "aggregate_id: expected 1 to 512 characters, got 513"),
        ({**CREATED, "aggregate_id": 7}, "aggregate_id: expected text, got 7"),
        ({**CREATED, "event_id": "no"}, "event_id: expected a UUID"),
        (
            {**CREATED, "occured_at": NOW},
            r"unknown field 'occured_at' \(did you mean occurred_at\?\); allowed are event_type, ",
        ),
        ({**CREATED, "event_data": {"service_name": "s"}}, "event_data of TraceCreated: missing operation_name"),
        ({**CREATED, "event_data": None}, "event_data: expected an object, got None"),
        (
            {"event_type": "SpanRecorded", "aggregate_id": "t"},
            "missing span_id, service_name, operation_name, start_time",
        ),
        (_span(service="x"), r"unknown field 'service' \(did you mean service_name\?\); allowed are span_id, "),
        (_span(kind="srver"), r"event_data.kind: expected one of internal, .*, got 'srver' \(did you mean server\?\)"),
        (_span(status="completed"), "event_data.status: expected one of unset, ok, error"),
        (_span(start_time=NOW + 6), "end_time is before start_time"),
        (_span(tags=["a"]), "event_data.tags: expected an object"),
        (_span(tags={"a": {"b": [1, 2**63]}}), r"event_data.tags.a.b\[1\]: expected an integer of 64 bits"),
        (_span(tags={"a": [{"b": "\0"}]}), r"event_data.tags.a\[0\].b: a NUL character"),
        (_span(tags={"a": deep(64)}), r"event_data.tags.a(\[0\]){63}: more than 64 levels"),
        (_span(resource=[]), "event_data.resource: expected an object"),
        (_span(scope_name=None), "event_data.scope_name: expected text, got None"),
        (
            _span(scope_attributes={"a": {"\ud800": 1}}),
            "event_data.scope_attributes.a, a key: half of a surrogate pair",
        ),
        (_span(tags={"a": 2**63}), "event_data.tags.a: expected an integer of 64 bits"),
        (_span(tags={"a": float("nan")}), "event_data.tags.a: expected a value of JSON"),
        (_span(tags={"a": "x\0"}), "event_data.tags.a: a NUL character at position 1"),
        (_span(tags={"\0": 1}), "event_data.tags, a key: a NUL character"),
        (_span(operation_name="\ud800"), "event_data.operation_name: half of a surrogate pair"),
        (_span(events=[{"name": "e"}]), r"event_data.events\[0\]: missing time"),
        (_span(events=[{"name": "e", "time": "?"}]), r"event_data.events\[0\].time: expected a time"),
        (_span(links=[{"trace_id": "t", "spanid": "s"}]), r"event_data.links\[0\]: unknown field 'spanid'"),
        ({**CREATED, "aggregate_id": "ü" * 300}, "aggregate_id: expected at most 512 bytes of UTF-8"),
        (
            {"event_type": "RecordRetried", "aggregate_id": "t"},
            "RecordRetried settles a parked record; only `spanfold parked` publishes it",
        ),
        ({"event_type": "MetricUpdated"}, "event_data of MetricUpdated: missing name, service_name"),
        ({"event_type": "LogRecorded"}, "event_data of LogRecorded: missing service_name"),
        (_log(severity_number=25), "event_data.severity_number: expected a whole number from 0 to 24"),
        (_log(severity_text=None), "event_data.severity_text: expected text"),
        (_log(body=deep(65)), r"event_data.body(\[0\]){64}: more than 64 levels"),
        (_log(body=math.inf), "event_data.body: expected a value of JSON"),
        (_log(ordinal=-1), "event_data.ordinal: expected a whole number from 0"),
        (_log(observed_time="now"), "event_data.observed_time: expected a time"),
        (_log(message="boom"), "unknown field 'message'"),
        (_point(value=...), "a point of kind gauge needs value"),
        (_point(value="7"), "event_data.value: expected a number"),
        (_point(value=True), "event_data.value: expected a number"),
        (_point(value=2**63), "event_data.value: expected a number"),
        (_point(count=3), "a point of kind gauge can't have count; `kind` says what it is"),
        (_point(kind="counter"), "event_data.kind: expected one of gauge, sum, histogram, exponential_histogram"),
        (_point(kind="sum"), "a point of kind sum needs temporality"),
        (_point(tags={}), r"unknown field 'tags'"),
        (_point(monotonic=1), "event_data.monotonic: expected true or false"),
        (_histogram(temporality="montly"), "event_data.temporality: expected one of delta, cumulative"),
        (_histogram(count=-1), "event_data.count: expected a whole number from 0"),
        (_histogram(count=True), "event_data.count: expected a whole number from 0"),
        (_histogram(count=4), "bucket_counts add up to 3, but count is 4"),
        (_histogram(bounds=[1]), "1 bounds need 2 bucket_counts, got 3"),
        (_histogram(bounds=[2, 1]), "event_data.bounds: expected numbers in ascending order"),
        (_histogram(bounds=["NaN"], bucket_counts=[1, 2]), "event_data.bounds: expected numbers in ascending order"),
        (_histogram(kind="exponential_histogram"), "needs scale"),
        (
            _histogram(kind="exponential_histogram", scale=21),
            "event_data.scale: expected a whole number from -10 to 20",
        ),
        (_histogram(kind="exponential_histogram", scale=3), "can't have bounds, bucket_counts"),
        ({**LOG, "event_data": {**LOG["event_data"], "trace_id": 7}}, "event_data.trace_id: expected text, got 7"),
        (
            {**LOG, "aggregate_id": "x", "event_data": {**LOG["event_data"], "trace_id": "t-1"}},
            "aggregate_id: expected the trace_id t-1, or nothing at all, got 'x'",
        ),
    ],
)
def test_a_wrong_event_is_told_what_is_wrong(obj: Any, complaint: str) -> None:
    with pytest.raises(InvalidInput, match=complaint):
        read(obj)
