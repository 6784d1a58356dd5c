"""The domain's rules: what is legal, and what is said of what is not."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from spanfold.application.domain import (
    Environment,
    Health,
    Service,
    ServiceId,
    Span,
    SpanId,
    Trace,
    TraceId,
    TraceStatus,
)
from spanfold.language.errors import CommandRefused, InvalidInput
from spanfold.language.times import as_us

NOON = as_us(datetime(2026, 11, 23, 12, tzinfo=UTC))
STARTED = Trace(id=TraceId("t-1"), service_id=ServiceId("cart"), operation_name="GET /cart", start=NOON)


def span(**said: Any) -> Span:
    return Span(**{"id": SpanId("s-1"), "operation_name": "SELECT", "start": NOON, "end": NOON + 250, **said})


# Ids


def test_an_id_is_a_text_that_knows_what_it_identifies() -> None:
    assert TraceId("t-1") == "t-1"
    assert repr(TraceId("t-1")) == "TraceId('t-1')"
    assert {TraceId("t-1"): 1}[TraceId("t-1")] == 1
    assert (len(TraceId.new()), len(SpanId.new())) == (32, 16)
    assert TraceId.new() != TraceId.new()


@pytest.mark.parametrize(
    ("value", "said"),
    [("", "1 to 512"), ("ü" * 257, "514"), ("a\0", "position 1"), ("\ud800", "position 0"), (7, "text")],
)
def test_what_no_id_can_be_is_refused(value: Any, said: str) -> None:
    with pytest.raises(InvalidInput, match=f"TraceId.*{said}"):
        TraceId(value)


# Spans and traces


def test_times_are_microseconds_and_python_has_them_as_its_own() -> None:
    ended = STARTED.complete(NOON + 1_500)
    assert ended.started_at == datetime(2026, 11, 23, 12, tzinfo=UTC)
    assert ended.ended_at == ended.started_at + timedelta(microseconds=1_500)
    assert ended.duration == timedelta(microseconds=1_500)
    assert (STARTED.duration, STARTED.ended_at) == (None, None)
    assert span().duration == timedelta(microseconds=250)


def test_a_span_that_ends_before_it_starts_is_refused() -> None:
    assert span(end=NOON).duration == timedelta()
    with pytest.raises(CommandRefused, match=f"ends 1 µs before it starts: its end must not be before {NOON}"):
        span(end=NOON - 1)


def test_a_span_is_not_its_own_parent() -> None:
    with pytest.raises(CommandRefused, match="its own parent"):
        span(parent_id=SpanId("s-1"))


def test_a_trace_completes_once() -> None:
    completed = STARTED.complete(NOON + 5, {"items": 3})
    assert (completed.status, completed.end, completed.closing_tags) == (TraceStatus.COMPLETED, NOON + 5, {"items": 3})
    assert STARTED.is_open
    for again in (lambda: completed.complete(NOON + 5), lambda: completed.fail("no", NOON + 5)):
        with pytest.raises(CommandRefused, match=f"already ended as completed at {NOON + 5}: .*only takes late spans"):
            again()


def test_a_trace_fails_once_and_says_why() -> None:
    failed = STARTED.fail("timeout", NOON + 5)
    assert (failed.status, failed.error) == (TraceStatus.FAILED, "timeout")
    with pytest.raises(CommandRefused, match="already ended as failed at"):
        failed.complete(NOON + 6)


def test_a_trace_does_not_end_before_it_starts() -> None:
    for end in (lambda: STARTED.complete(NOON - 2), lambda: STARTED.fail("no", NOON - 2)):
        with pytest.raises(CommandRefused, match="2 µs before it starts"):
            end()


def test_a_trace_may_end_in_a_way_of_its_own_but_not_as_failed() -> None:
    assert STARTED.complete(NOON, status="cancelled").status == "cancelled"
    for status in ("failed", "started", ""):
        with pytest.raises(CommandRefused, match="fail it, or use another status"):
            STARTED.complete(NOON, status=status)


def test_a_span_is_added_once_also_when_it_is_late() -> None:
    closed = STARTED.add_span(span()).complete(NOON + 1)
    assert closed.add_span(span()) is closed
    assert closed.add_span(span(service_id=ServiceId("cart"))) is closed
    late = closed.add_span(span(id=SpanId("s-2")))
    assert [each.id for each in late.spans] == ["s-1", "s-2"]


def test_a_span_with_other_content_is_another_span() -> None:
    with pytest.raises(CommandRefused, match=r"has a different span s-1 of kind internal.*another id"):
        STARTED.add_span(span()).add_span(span(operation_name="another"))
    halves = STARTED.add_span(span(kind="client")).add_span(span(kind="server"))
    assert len(halves.spans) == 2


def test_a_span_that_is_added_again_with_a_later_end_is_the_same_span() -> None:
    longer = span(end=NOON + 900)
    assert STARTED.add_span(span()).add_span(longer).spans == (longer,)
    assert STARTED.add_span(longer).add_span(span()).spans == (longer,)


def test_tags_of_the_end_lie_over_those_of_the_start() -> None:
    trace = Trace(
        **{**{f: getattr(STARTED, f) for f in ("id", "service_id", "operation_name", "start")}, "tags": {"a": 1}}
    )
    assert trace.complete(NOON, {"a": 2, "b": 3}).all_tags == {"a": 2, "b": 3}


# Services


def test_a_service_starts_anew_in_each_version() -> None:
    service = Service(id=ServiceId("cart"), name="Cart", version="1.0", environment=Environment.STAGING)
    healthy = service.with_health(Health.HEALTHY)
    assert (service.health, healthy.health) == (Health.UNKNOWN, Health.HEALTHY)
    assert (service.is_healthy, healthy.is_healthy) == (False, True)
    assert not service.with_health(Health.UNHEALTHY).is_healthy
    assert (healthy.upgraded("1.1").version, healthy.upgraded("1.1").health) == ("1.1", Health.UNKNOWN)
    with pytest.raises(InvalidInput, match="version is empty"):
        healthy.upgraded("")
