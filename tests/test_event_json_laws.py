"""Laws of the JSON face of events, on events of every kind."""

import json
from typing import Any, cast

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spanfold.language.event_json import event_from_json, event_to_json
from spanfold.language.events import (
    Event,
    LogRecorded,
    MetricUpdated,
    ServiceDeregistered,
    ServiceHealthChanged,
    ServiceRegistered,
    SpanRecorded,
    TraceCompleted,
    TraceCreated,
    TraceFailed,
)
from spanfold.schemas.codec import Codec
from spanfold.schemas.decoding import event_of

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20)
TIMES = st.integers(-62_135_596_800_000_000, 253_402_300_799_999_999)
SCALARS = TEXTS | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    SCALARS | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=5,
)
TAGS = st.dictionaries(TEXTS, VALUES, max_size=3)
SOURCES = {"resource": TAGS, "scope_name": TEXTS, "scope_version": TEXTS, "scope_attributes": TAGS}
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
        **SOURCES,
    )
    return draw(made)


NUMBERS = st.floats(allow_nan=False)  # NaN is itself tested above: it equals nothing
COUNTS = st.integers(0, 2**40)
TEMPORALITIES = st.sampled_from(["delta", "cumulative"])
EXTREMES = {"count": COUNTS, "sum": st.none() | NUMBERS, "min": st.none() | NUMBERS, "max": st.none() | NUMBERS}


@st.composite
def buckets(draw: st.DrawFn) -> dict[str, Any]:
    bounds = sorted(set(draw(st.lists(NUMBERS, max_size=4))))
    counts = tuple(draw(COUNTS) for _ in range(len(bounds) + 1))
    return {"kind": "histogram", "bounds": tuple(bounds), "bucket_counts": counts, "count": sum(counts)}


SHAPES = st.one_of(
    st.fixed_dictionaries({"kind": st.just("gauge"), "value": NUMBERS | st.integers(-(2**63), 2**63 - 1)}),
    st.fixed_dictionaries(
        {"kind": st.just("sum"), "value": NUMBERS, "monotonic": st.booleans(), "temporality": TEMPORALITIES}
    ),
    st.tuples(st.fixed_dictionaries({**EXTREMES, "temporality": TEMPORALITIES}), buckets()).map(
        lambda two: two[0] | two[1]
    ),
    st.fixed_dictionaries(
        {
            **EXTREMES,
            "kind": st.just("exponential_histogram"),
            "temporality": TEMPORALITIES,
            "scale": st.integers(-10, 20),
            "zero_count": st.none() | COUNTS,
            "positive_offset": st.integers(-(2**31), 2**31 - 1),
            "positive_counts": st.lists(COUNTS, max_size=3).map(tuple),
        }
    ),
)


@st.composite
def points(draw: st.DrawFn) -> MetricUpdated:
    fields: dict[str, Any] = {name: draw(strategy) for name, strategy in (ENVELOPES | SOURCES).items()}
    return MetricUpdated(
        **fields,
        **draw(SHAPES),
        name=draw(NAMES),
        service_name=draw(NAMES),
        unit=draw(TEXTS),
        start_time=draw(st.none() | TIMES),
        labels=draw(TAGS),
    )


@st.composite
def log_records(draw: st.DrawFn) -> LogRecorded:
    fields: dict[str, Any] = {name: draw(strategy) for name, strategy in (ENVELOPES | SOURCES).items()}
    trace_id = draw(st.none() | NAMES)
    return LogRecorded(
        **{**fields, "aggregate_id": trace_id or fields["aggregate_id"]},
        service_name=draw(NAMES),
        severity_number=draw(st.integers(0, 24)),
        severity_text=draw(TEXTS),
        body=draw(VALUES),
        event_name=draw(TEXTS),
        observed_time=draw(st.none() | TIMES),
        trace_id=trace_id,
        span_id=draw(st.none() | NAMES),
        tags=draw(TAGS),
        ordinal=draw(st.integers(0, 2**31 - 1)),
    )


SERVICE_STATUSES = st.sampled_from(["starting", "healthy", "unhealthy", "stopping"])

EVENTS = st.one_of(
    st.builds(
        ServiceRegistered,
        **ENVELOPES,
        service_name=NAMES,
        host=NAMES,
        port=st.integers(1, 65_535),
        health_check_url=TEXTS,
        metadata=st.dictionaries(TEXTS, TEXTS, max_size=3),
        status=SERVICE_STATUSES,
    ),
    st.builds(ServiceHealthChanged, **ENVELOPES, status=SERVICE_STATUSES, reason=TEXTS),
    st.builds(ServiceDeregistered, **ENVELOPES, reason=TEXTS),
    st.builds(TraceCreated, **ENVELOPES, service_name=NAMES, operation_name=NAMES, start_time=TIMES, tags=TAGS),
    spans(),
    st.builds(TraceCompleted, **ENVELOPES, end_time=TIMES, status=NAMES, tags=TAGS),
    st.builds(TraceFailed, **ENVELOPES, error=TEXTS, end_time=TIMES, tags=TAGS),
    points(),
    log_records(),
)


# the first run of all builds Hypothesis' table of characters
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(EVENTS)
def test_an_event_comes_back_from_json_as_it_went(event: Event) -> None:
    assert event_from_json(json.loads(json.dumps(event_to_json(event), allow_nan=False)), 0, "test") == event


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(EVENTS)
def test_what_json_takes_the_codec_takes(event: Event) -> None:
    codec = Codec()
    event_type, fields = codec.decode(codec.encode(event.event_type, event.as_fields()))
    again = cast(Event, event_of(codec, event_type, fields))
    assert (as_text(again), again.event_id) == (as_text(event), event.event_id)


def as_text(event: Event) -> str:
    """All that it says; lists and tuples are alike."""
    return json.dumps(event_to_json(event), sort_keys=True)
