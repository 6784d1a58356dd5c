import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.codec import Codec
from spanfold.errors import InvalidInput
from spanfold.event_json import event_from_json, event_to_json
from spanfold.events import EVENT_TYPES, SpanRecorded, TraceCompleted, TraceCreated, TraceEvent, TraceFailed

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


def read(obj: Any) -> TraceEvent:
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
        (NOW, NOW),
    ],
)
def test_times_are_rfc_3339_or_microseconds(text: str | int, us: int) -> None:
    assert read({**CREATED, "occurred_at": text}).occurred_at == us


@pytest.mark.parametrize(
    "time",
    [
        "yesterday",
        "2026-11-18",
        "2026-11-18T11:06:40",
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
    with pytest.raises(InvalidInput, match=r"occurred_at: .*(a time such as|is no time)"):
        read({**CREATED, "occurred_at": time})


def _span(**changes: Any) -> dict[str, Any]:
    return {**SPAN, "event_data": {**SPAN_DATA, **changes}}


@pytest.mark.parametrize(
    ("obj", "complaint"),
    [
        ([], r"event: expected an object, got \[\]"),
        ({"event_type": "TraceCreated"}, "event: missing aggregate_id"),
        (
            {**CREATED, "event_type": "TraceCreatd"},
            r"unknown type 'TraceCreatd' \(did you mean TraceCreated\?\); known are",
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
        (_span(start_time=NOW + 6), "end_time lies before start_time"),
        (_span(tags=["a"]), "event_data.tags: expected an object"),
        (_span(tags={"a": None}), "event_data.tags.a: expected text, a finite number"),
        (_span(tags={"a": {"b": 1}}), "event_data.tags.a: expected text"),
        (_span(tags={"a": [1, [2]]}), r"event_data.tags.a\[1\]: expected text"),
        (_span(tags={"a": 2**63}), "event_data.tags.a: expected an integer of 64 bits"),
        (_span(tags={"a": float("nan")}), "event_data.tags.a: expected text, a finite number"),
        (_span(tags={"a": "x\0"}), "event_data.tags.a: a NUL character at position 1"),
        (_span(tags={"\0": 1}), "event_data.tags, a key: a NUL character"),
        (_span(operation_name="\ud800"), "event_data.operation_name: half of a surrogate pair"),
        (_span(events=[{"name": "e"}]), r"event_data.events\[0\]: missing time"),
        (_span(events=[{"name": "e", "time": "?"}]), r"event_data.events\[0\].time: expected a time"),
        (_span(links=[{"trace_id": "t", "spanid": "s"}]), r"event_data.links\[0\]: unknown field 'spanid'"),
    ],
)
def test_a_wrong_event_is_told_what_is_wrong(obj: Any, complaint: str) -> None:
    with pytest.raises(InvalidInput, match=complaint):
        read(obj)


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20)
TIMES = st.integers(-62_135_596_800_000_000, 253_402_300_799_999_999)
SCALARS = TEXTS | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
TAGS = st.dictionaries(TEXTS, SCALARS | st.lists(SCALARS, max_size=3), max_size=3)
ENVELOPES = {
    "aggregate_id": NAMES,
    "occurred_at": TIMES,
    "source": NAMES,
    "event_id": st.just(b"") | st.binary(min_size=16, max_size=16),
}


@st.composite
def spans(draw: st.DrawFn) -> SpanRecorded:
    start, end = sorted((draw(TIMES), draw(TIMES)))
    happening = st.fixed_dictionaries({"name": TEXTS, "time": TIMES, "attributes": TAGS})
    link = st.fixed_dictionaries({"trace_id": NAMES, "span_id": NAMES, "attributes": TAGS})
    made = st.builds(
        SpanRecorded,
        **ENVELOPES,
        span_id=NAMES,
        parent_span_id=st.none() | NAMES,
        service_name=NAMES,
        operation_name=NAMES,
        start_time=st.just(start),
        end_time=st.just(end),
        kind=st.sampled_from(["internal", "server", "client", "producer", "consumer"]),
        status=st.sampled_from(["unset", "ok", "error"]),
        status_message=st.none() | TEXTS,
        tags=TAGS,
        events=st.lists(happening, max_size=2).map(tuple),
        links=st.lists(link, max_size=2).map(tuple),
    )
    return draw(made)


EVENTS = st.one_of(
    st.builds(TraceCreated, **ENVELOPES, service_name=NAMES, operation_name=NAMES, start_time=TIMES, tags=TAGS),
    spans(),
    st.builds(TraceCompleted, **ENVELOPES, end_time=TIMES, status=NAMES, tags=TAGS),
    st.builds(TraceFailed, **ENVELOPES, error=TEXTS, end_time=TIMES, tags=TAGS),
)


# the first run of all builds Hypothesis' table of characters
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(EVENTS)
def test_an_event_comes_back_from_json_as_it_went(event: TraceEvent) -> None:
    assert read(json.loads(json.dumps(event_to_json(event)))) == event


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(EVENTS)
def test_what_json_takes_the_codec_takes(event: TraceEvent) -> None:
    codec = Codec()
    event_type, fields = codec.decode(codec.encode(event.event_type, event.as_fields()))
    fields = {**fields, **{name: tuple(fields[name]) for name in ("events", "links") if name in fields}}
    assert EVENT_TYPES[event_type](**fields) == event
