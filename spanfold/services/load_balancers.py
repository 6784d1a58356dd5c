"""Load balancers: which of the healthy instances gets the next call."""

import random
from collections.abc import Mapping, Sequence
from typing import Protocol

InstanceId = str


class LoadBalancer(Protocol):
    """Chooses an instance. `in_flight` counts the calls under way by instance; one that is not in it has none.

    Not thread-safe. ValueError when there is no instance.
    """

    def choose(self, instances: Sequence[InstanceId], in_flight: Mapping[InstanceId, int]) -> InstanceId: ...


class RoundRobin:
    """One after the other, in the order of their ids. An instance that comes or goes changes nobody else's turn."""

    def __init__(self) -> None:
        self._last: InstanceId | None = None

    def choose(self, instances: Sequence[InstanceId], in_flight: Mapping[InstanceId, int]) -> InstanceId:
        if not instances:
            raise ValueError("no instance to choose from")
        last = self._last
        later = [instance for instance in instances if last is not None and instance > last]
        self._last = min(later or instances)
        return self._last


class LeastInFlight:
    """The one with the fewest calls under way; round robin among equals."""

    def __init__(self) -> None:
        self._equals = RoundRobin()

    def choose(self, instances: Sequence[InstanceId], in_flight: Mapping[InstanceId, int]) -> InstanceId:
        fewest = min((in_flight.get(instance, 0) for instance in instances), default=0)
        return self._equals.choose([each for each in instances if in_flight.get(each, 0) == fewest], in_flight)


class PowerOfTwoChoices:
    """Of two at random the one with fewer calls under way. It does nearly as well as LeastInFlight and never has all callers
    rush to the same instance (Mitzenmacher, The Power of Two Choices in Randomized Load Balancing, 2001).
    """

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def choose(self, instances: Sequence[InstanceId], in_flight: Mapping[InstanceId, int]) -> InstanceId:
        if not instances:
            raise ValueError("no instance to choose from")
        two = self._rng.sample(instances, min(2, len(instances)))
        return min(two, key=lambda instance: in_flight.get(instance, 0))
