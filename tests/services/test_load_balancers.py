"""The balancers: fair, and right when instances come and go."""

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spanfold.services.load_balancers import LeastInFlight, LoadBalancer, PowerOfTwoChoices, RoundRobin

names = st.lists(st.text("abcdef", min_size=1, max_size=3), min_size=1, max_size=9, unique=True)
loads = st.dictionaries(st.text("abcdef", min_size=1, max_size=3), st.integers(0, 5))


@given(names, st.integers(1, 40))
def test_round_robin_gives_everybody_the_same_number_of_calls(instances: list[str], calls: int) -> None:
    balancer = RoundRobin()
    counts = Counter(balancer.choose(instances, {}) for _ in range(calls * len(instances)))
    assert set(counts.values()) == {calls}


@given(names, st.data())
def test_an_instance_that_comes_or_goes_changes_nobody_elses_turn(instances: list[str], data: st.DataObject) -> None:
    balancer = RoundRobin()
    last = balancer.choose(instances, {})
    left = data.draw(st.lists(st.sampled_from(sorted({*instances, "zz", "0"})), min_size=1, unique=True))
    later = sorted(instance for instance in left if instance > last)
    assert balancer.choose(left, {}) == (later or sorted(left))[0]


@given(names, loads)
def test_least_in_flight_never_chooses_a_busier_one(instances: list[str], in_flight: dict[str, int]) -> None:
    chosen = LeastInFlight().choose(instances, in_flight)
    assert in_flight.get(chosen, 0) == min(in_flight.get(instance, 0) for instance in instances)


def test_least_in_flight_takes_turns_among_equals() -> None:
    balancer = LeastInFlight()
    assert [balancer.choose(["a", "b", "c"], {"b": 1}) for _ in range(4)] == ["a", "c", "a", "c"]


@given(names, loads, st.integers())
def test_power_of_two_never_chooses_the_busiest_alone(
    instances: list[str], in_flight: dict[str, int], seed: int
) -> None:
    balancer = PowerOfTwoChoices(random.Random(seed))
    chosen = balancer.choose(instances, in_flight)
    assert chosen in instances
    others = [in_flight.get(instance, 0) for instance in instances if instance != chosen]
    assert not others or in_flight.get(chosen, 0) <= max(others)


@pytest.mark.parametrize("balancer", [RoundRobin(), LeastInFlight(), PowerOfTwoChoices(random.Random(1))])
def test_without_instances_there_is_nothing_to_choose(balancer: LoadBalancer) -> None:
    with pytest.raises(ValueError, match="no instance"):
        balancer.choose([], {})
