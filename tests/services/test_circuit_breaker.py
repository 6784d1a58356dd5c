"""The breaker: its states at the stated numbers, whatever comes in between."""

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spanfold.services.circuit_breaker import CallNotPermitted, Circuit, CircuitBreaker, CircuitPolicy, CircuitState

CLOSED, OPEN, HALF_OPEN = CircuitState.CLOSED, CircuitState.OPEN, CircuitState.HALF_OPEN


def after(circuit: Circuit, results: str, now: float = 0.0) -> Circuit:
    """Calls one after the other: + succeeded, - failed; each must be permitted."""
    for result in results:
        circuit, permit = circuit.acquire(now)
        assert permit is not None
        circuit = circuit.record(permit, success=result == "+", now=now)
    return circuit


@pytest.mark.parametrize(
    ("results", "state"), [("----", CLOSED), ("-----", OPEN), ("----+----", CLOSED), ("+-----", OPEN)]
)
def test_it_opens_after_five_failures_in_a_row(results: str, state: CircuitState) -> None:
    assert after(Circuit(), results).state is state


def test_open_it_permits_nothing_for_60_s_and_then_one_call_at_a_time() -> None:
    circuit = after(Circuit(), "-----", now=100)
    assert circuit.acquire(159.9)[1] is None
    assert circuit.retry_after_s(110) == 50
    circuit, first = circuit.acquire(160)
    assert circuit.state is HALF_OPEN
    assert first is not None
    assert circuit.acquire(161)[1] is None
    circuit = circuit.record(first, success=True, now=162)
    assert circuit.acquire(162)[1] is not None


@pytest.mark.parametrize(("results", "state"), [("++", HALF_OPEN), ("+++", CLOSED), ("-", OPEN), ("++-", OPEN)])
def test_half_open_it_closes_after_three_successes_and_one_failure_opens_it(results: str, state: CircuitState) -> None:
    assert after(after(Circuit(), "-----"), results, now=60).state is state


def test_a_call_counts_only_in_the_state_in_which_it_was_permitted() -> None:
    circuit, early = Circuit().acquire(0)
    assert early is not None
    circuit = after(circuit, "-----")
    assert circuit.record(early, success=True, now=1).state is OPEN
    half_open, late = circuit.acquire(60)
    assert late is not None
    assert half_open.record(early, success=False, now=61).state is HALF_OPEN
    assert half_open.record(early, success=False, now=61).calls == 1


def test_a_permit_that_is_released_counts_for_nothing_and_frees_its_place() -> None:
    circuit, permit = after(Circuit(), "-----").acquire(60)
    assert permit is not None
    circuit = circuit.release(permit, 60)
    assert (circuit.state, circuit.successes, circuit.calls) == (HALF_OPEN, 0, 0)


class Model:
    """The same in the plainest words."""

    def __init__(self, policy: CircuitPolicy) -> None:
        self.policy, self.state, self.opened, self.row, self.good = policy, CLOSED, 0.0, 0, 0

    def look(self, now: float) -> None:
        if self.state is OPEN and now - self.opened >= self.policy.wait_duration_s:
            self.state, self.good = HALF_OPEN, 0

    def result(self, success: bool, now: float) -> None:
        if self.state is HALF_OPEN and success:
            self.good += 1
            if self.good == self.policy.success_threshold:
                self.state, self.row = CLOSED, 0
        elif success:
            self.row = 0
        else:
            self.row += 1
            if self.state is HALF_OPEN or self.row == self.policy.failure_threshold:
                self.state, self.opened, self.row = OPEN, now, 0


policies = st.builds(
    CircuitPolicy,
    failure_threshold=st.integers(1, 4),
    wait_duration_s=st.integers(0, 5).map(float),
    success_threshold=st.integers(1, 4),
)


@given(policies, st.lists(st.tuples(st.integers(0, 4), st.booleans()), max_size=60))
def test_calls_one_after_the_other_are_the_model_s(policy: CircuitPolicy, calls: list[tuple[int, bool]]) -> None:
    circuit, model, now = Circuit(policy), Model(policy), 0.0
    for wait_s, success in calls:
        now += wait_s
        model.look(now)
        circuit, permit = circuit.acquire(now)
        assert (circuit.state, permit is not None) == (model.state, model.state is not OPEN)
        if permit is not None:
            circuit = circuit.record(permit, success=success, now=now)
            model.result(success, now)
        assert circuit.state is model.state


@given(
    policies,
    st.integers(1, 4),
    st.lists(st.tuples(st.sampled_from("arf"), st.integers(0, 9), st.booleans()), max_size=80),
)
def test_never_more_calls_are_under_way_than_a_half_open_breaker_permits(
    policy: CircuitPolicy, permitted: int, steps: list[tuple[str, int, bool]]
) -> None:
    policy = CircuitPolicy(policy.failure_threshold, policy.wait_duration_s, policy.success_threshold, permitted)
    circuit, now, permits = Circuit(policy), 0.0, list[Any]()
    for what, number, success in steps:
        now += number / 3
        if what == "a":
            circuit, permit = circuit.acquire(now)
            permits += [permit] if permit is not None else []
        elif permits:
            permit = permits.pop(number % len(permits))
            circuit = circuit.record(permit, success=success, now=now) if what == "r" else circuit.release(permit, now)
        under_way = sum(permit.epoch == circuit.epoch for permit in permits)
        if circuit.state is HALF_OPEN:
            assert circuit.calls == under_way <= permitted


# For one's own calls


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_calls_of_a_function_go_through_the_breaker_and_its_changes_are_told() -> None:
    clock, changes, fails = Clock(), list[tuple[str, str]](), True
    breaker = CircuitBreaker(
        "payments", clock=clock, on_transition=lambda name, before, after: changes.append((before, after))
    )

    @breaker.protected
    def charge() -> str:
        if fails:
            raise ConnectionError
        return "paid"

    for _ in range(5):
        with pytest.raises(ConnectionError):
            charge()
    with pytest.raises(CallNotPermitted, match=r"^the circuit breaker of payments is open: try again in 60 s$"):
        charge()
    fails, clock.now = False, 60.0
    assert [charge() for _ in range(3)] == ["paid"] * 3
    assert changes == [(CLOSED, OPEN), (OPEN, HALF_OPEN), (HALF_OPEN, CLOSED)]


def test_what_is_no_failure_of_the_service_does_not_open_it() -> None:
    breaker = CircuitBreaker("payments", failures=(ConnectionError,))
    for _ in range(9):
        with pytest.raises(KeyError), breaker.call():
            raise KeyError
    assert breaker.state is CLOSED


async def test_a_task_that_is_cancelled_is_neither_success_nor_failure() -> None:
    clock = Clock()
    breaker = CircuitBreaker("payments", CircuitPolicy(failure_threshold=1), clock=clock)
    with pytest.raises(ConnectionError), breaker.call():
        raise ConnectionError
    clock.now = 60.0

    async def hang() -> None:
        with breaker.call():
            await asyncio.sleep(60)

    task = asyncio.create_task(hang())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert breaker.state is HALF_OPEN
    with breaker.call():  # its place is free again
        pass


@pytest.mark.parametrize("wrong", [{"failure_threshold": 0}, {"permitted_calls": 0}, {"wait_duration_s": -1}])
def test_a_policy_that_can_never_work_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        CircuitPolicy(**wrong)
