"""Aggregates: given events, when a command, then events; and the laws of their folds."""

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spanfold.application.aggregates import (
    AddSpan,
    ChangeServiceHealth,
    CompleteTrace,
    DeregisterService,
    FailTrace,
    MetricSeriesAggregate,
    RegisterService,
    ServiceAggregate,
    StartTrace,
    TraceAggregate,
    TraceState,
    event_class,
    installed_aggregates,
)
from spanfold.application.domain import Health, InstanceStatus
from spanfold.application.trace_facts import facts_to_add, trace_of
from spanfold.language.errors import CommandRefused, InvalidInput
from spanfold.language.events import (
    DomainEvent,
    ServiceDeregistered,
    ServiceHealthChanged,
    ServiceRegistered,
    SpanRecorded,
    TraceCompleted,
    TraceCreated,
    TraceEvent,
    TraceFailed,
)
from spanfold.projections.traces.fold import TracePartial, fold
from tests.support.strategies import distinct_events
from tests.support.strategies import events as trace_events

NOW = 1_795_000_000_000_000
SAID: dict[str, Any] = {"aggregate_id": "t-1", "source": "spanfold"}
CREATED = TraceCreated(**SAID, occurred_at=NOW, service_name="cart", operation_name="GET", start_time=NOW)
COMPLETED = TraceCompleted(**SAID, occurred_at=NOW + 9, end_time=NOW + 9)
FAILED = TraceFailed(**SAID, occurred_at=NOW + 9, end_time=NOW + 9, error="timeout")
RECORDED = SpanRecorded(
    **SAID, occurred_at=NOW + 5, span_id="s-1", parent_span_id=None, service_name="cart", operation_name="SELECT",
    start_time=NOW, end_time=NOW + 5,
)  # fmt: skip

START = StartTrace(aggregate_id="t-1", service_name="cart", operation_name="GET", start_time=NOW)
COMPLETE = CompleteTrace(aggregate_id="t-1", end_time=NOW + 9)
FAIL = FailTrace(aggregate_id="t-1", end_time=NOW + 9, error="timeout")
ADD = AddSpan(
    aggregate_id="t-1", span_id="s-1", service_name="cart", operation_name="SELECT", start_time=NOW, end_time=NOW + 5
)


def state_of(events: Sequence[TraceEvent]) -> TraceState:
    return reduce(TraceAggregate.evolve, events, TraceAggregate.initial("t-1"))


@pytest.mark.parametrize(
    ("given_events", "command", "then"),
    [
        ([], START, [CREATED]),
        ([CREATED], START, []),
        ([COMPLETED], START, [CREATED]),
        ([CREATED], COMPLETE, [COMPLETED]),
        ([], COMPLETE, [COMPLETED]),
        ([CREATED, COMPLETED], COMPLETE, []),
        ([CREATED], FAIL, [FAILED]),
        ([CREATED], ADD, [RECORDED]),
        ([CREATED, COMPLETED], ADD, [RECORDED]),
        ([RECORDED], ADD, []),
        ([RECORDED], replace(ADD, kind="client"), [replace(RECORDED, kind="client", event_id=b"")]),
    ],
)
def test_a_wish_adds_what_is_not_so_yet(given_events: Any, command: Any, then: Any) -> None:
    assert TraceAggregate.decide(state_of(given_events), command) == then


@pytest.mark.parametrize(
    ("given_events", "command", "said"),
    [
        ([CREATED], replace(START, operation_name="POST"), "use another id for another trace"),
        ([COMPLETED], replace(START, start_time=NOW + 10), "can't end 1 µs before it starts"),
        ([CREATED], replace(COMPLETE, end_time=NOW - 1), "can't end 1 µs before it starts"),
        ([CREATED, COMPLETED], replace(COMPLETE, end_time=NOW + 10), f"already ended as completed at {NOW + 9}"),
        ([CREATED, COMPLETED], FAIL, f"already ended as completed at {NOW + 9}"),
        ([FAILED], COMPLETE, "already ended as failed at"),
        ([CREATED], replace(COMPLETE, status="failed"), "fail it, or use another status"),
        ([], replace(ADD, end_time=NOW - 1), "ends before it starts"),
        ([RECORDED], replace(ADD, operation_name="INSERT"), "has a different span s-1 of kind internal"),
    ],
)
def test_what_is_known_to_be_wrong_is_refused(given_events: Any, command: Any, said: str) -> None:
    with pytest.raises(CommandRefused, match=said):
        TraceAggregate.decide(state_of(given_events), command)


def test_status_goes_from_started_to_what_the_end_says() -> None:
    assert state_of([CREATED]).status == "started"
    assert state_of([CREATED, COMPLETED]).status == "completed"
    assert state_of([CREATED, replace(COMPLETED, status="cancelled")]).status == "cancelled"
    assert (state_of([CREATED, FAILED]).status, state_of([FAILED]).error) == ("failed", "timeout")


TOLD = distinct_events(6, trace_events.map(lambda event: replace(event, aggregate_id="t-1")))
lawful = settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])


@lawful
@given(TOLD, st.randoms())
def test_any_order_of_events_also_twice_gives_the_same_state(events: list[TraceEvent], random: Any) -> None:
    shuffled = events + events[: len(events) // 2]
    random.shuffle(shuffled)
    assert repr(TraceAggregate.as_plain(state_of(shuffled))) == repr(TraceAggregate.as_plain(state_of(events)))


@lawful
@given(TOLD)
def test_the_state_says_what_the_read_model_says(events: list[TraceEvent]) -> None:
    facts = [(offset, event.event_type, dict(event.as_fields())) for offset, event in enumerate(events)]
    partial = fold(facts).traces.get("t-1", TracePartial())
    state = state_of(events)
    assert [state.created and state.created.event_id, state.closed and state.closed.event_id] == [
        partial.created and partial.created.event_id,
        partial.closed and partial.closed.event_id,
    ]
    assert [state.root_created is not None, state.root_closed is not None] == [
        half is not None and half.root == partial.root for half in (partial.created, partial.closed)
    ]
    assert len(state.spans) == partial.span_count


@lawful
@given(TOLD)
def test_a_snapshot_is_the_state(events: list[TraceEvent]) -> None:
    state = state_of(events)
    assert repr(TraceAggregate.from_plain(TraceAggregate.as_plain(state))) == repr(
        replace(state, spans={key: state.spans[key] for key in sorted(state.spans)})
    )


@lawful
@given(TOLD)
def test_what_the_log_tells_of_a_trace_need_not_be_told_again(events: list[TraceEvent]) -> None:
    state = state_of(events)
    trace = trace_of(state)
    if trace is None:
        assert state.root_created is None
    else:
        assert facts_to_add(trace, state, "test") == []


# The classic shape


def test_an_aggregate_has_an_id_a_version_and_what_is_not_appended_yet() -> None:
    trace = TraceAggregate("t-1")
    trace.apply_event(CREATED, version=12)
    assert (trace.id, trace.version, trace.status) == ("t-1", 12, "started")
    trace.complete_trace(NOW + 9)
    assert (trace.version, trace.status, trace.pending) == (12, "completed", [COMPLETED])
    trace.appended(14)
    assert (trace.version, trace.pending) == (14, [])


def test_its_commands_are_methods() -> None:
    trace = TraceAggregate("t-1")
    trace.start_trace("cart", "GET", NOW)
    trace.add_span("s-1", service_name="cart", operation_name="SELECT", start_time=NOW, end_time=NOW + 5)
    trace.fail_trace("timeout", NOW + 9)
    assert trace.pending == [CREATED, RECORDED, FAILED]


def test_an_event_of_another_is_refused() -> None:
    for event in (replace(CREATED, aggregate_id="t-2"), REGISTERED):
        with pytest.raises(InvalidInput, match="is not an event of TraceAggregate t-1"):
            TraceAggregate("t-1").apply_event(event)


# Services

INSTANCE: dict[str, Any] = {"aggregate_id": "cart-1", "source": "spanfold", "occurred_at": NOW}
REGISTERED = ServiceRegistered(**INSTANCE, service_name="cart", host="h", port=80, health_check_url="http://h/health")
REGISTER = RegisterService(
    aggregate_id="cart-1", timestamp=NOW, service_name="cart", host="h", port=80, health_check_url="http://h/health"
)
HEALTHY = ChangeServiceHealth(aggregate_id="cart-1", timestamp=NOW, status=InstanceStatus.HEALTHY)


evolve: Any = ServiceAggregate.evolve


def decided(events: Sequence[DomainEvent], command: Any) -> Sequence[DomainEvent]:
    return ServiceAggregate.decide(reduce(evolve, events, ServiceAggregate.initial("cart-1")), command)


def test_a_service_is_registered_and_again_which_replaces_it() -> None:
    assert decided([], REGISTER) == [REGISTERED]
    moved = replace(REGISTERED, host="i", event_id=b"")
    assert decided([REGISTERED], replace(REGISTER, host="i")) == [moved]
    state = reduce(ServiceAggregate.evolve, [REGISTERED, moved], ServiceAggregate.initial("cart-1"))
    assert state.instance
    assert (state.instance.host, state.instance.status) == ("i", InstanceStatus.STARTING)


def test_only_a_change_of_health_is_an_event() -> None:
    changed = ServiceHealthChanged(**INSTANCE, status="healthy")
    assert decided([REGISTERED], HEALTHY) == [changed]
    assert decided([REGISTERED, changed], HEALTHY) == []
    with pytest.raises(CommandRefused, match="cart-1 is not registered: register it first"):
        decided([], HEALTHY)


def test_a_service_is_deregistered_once() -> None:
    gone = ServiceDeregistered(**INSTANCE)
    deregister = DeregisterService(aggregate_id="cart-1", timestamp=NOW)
    assert decided([REGISTERED], deregister) == [gone]
    assert decided([REGISTERED, gone], deregister) == decided([], deregister) == []
    assert decided([REGISTERED, gone], REGISTER) == [REGISTERED]


@pytest.mark.parametrize(
    ("status", "health"),
    [
        ("starting", Health.UNKNOWN),
        ("healthy", Health.HEALTHY),
        ("unhealthy", Health.UNHEALTHY),
        ("stopping", Health.UNHEALTHY),
        ("draining", Health.UNKNOWN),
    ],
)
def test_the_health_of_an_instance_is_unknown_until_a_check_has_spoken(status: str, health: Health) -> None:
    changed = ServiceHealthChanged(**INSTANCE, status=status)
    instance = reduce(evolve, [REGISTERED, changed], ServiceAggregate.initial("cart-1")).instance
    assert instance
    assert (instance.health, instance.is_healthy) == (health, status == "healthy")


def test_a_status_of_tomorrow_is_kept_as_it_is() -> None:
    state = ServiceAggregate.evolve(ServiceAggregate.initial("cart-1"), replace(REGISTERED, status="draining"))
    assert state.instance
    assert state.instance.status == "draining"
    assert ServiceAggregate.from_plain(ServiceAggregate.as_plain(state)) == state


def test_ours_are_installed_like_those_of_any_package() -> None:
    assert installed_aggregates() == {
        "metric_series": MetricSeriesAggregate,
        "service": ServiceAggregate,
        "trace": TraceAggregate,
    }
    assert event_class("ServiceRegistered") is ServiceRegistered
