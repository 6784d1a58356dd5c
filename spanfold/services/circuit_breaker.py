"""A circuit breaker: it stops calls to what keeps failing, and tries again after a while. The names are resilience4j's.

| state     | calls                              | becomes                                                             |
|-----------|------------------------------------|---------------------------------------------------------------------|
| closed    | all are permitted                  | open after `failure_threshold` failures in a row                    |
| open      | none is                            | half-open after `wait_duration_s`                                   |
| half-open | `permitted_calls` at a time        | closed after `success_threshold` successes, open after one failure  |

A call counts only in the state in which it was permitted: one that began before the breaker opened says nothing about now.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import wraps
from threading import Lock
from time import monotonic
from typing import Final, ParamSpec, TypeVar

from spanfold.language.errors import SpanfoldError

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


class CircuitState(StrEnum):
    """See the module."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True)
class CircuitPolicy:
    """When a breaker changes its state; see the module. Times in seconds."""

    failure_threshold: int = 5
    wait_duration_s: float = 60.0
    success_threshold: int = 3
    permitted_calls: int = 1

    def __post_init__(self) -> None:
        for name in ("failure_threshold", "success_threshold", "permitted_calls"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.wait_duration_s < 0:
            raise ValueError(f"wait_duration_s must not be negative, not {self.wait_duration_s}")


DEFAULT_POLICY: Final = CircuitPolicy()


class CallNotPermitted(SpanfoldError):
    """The breaker is open, or half-open with as many calls as it permits. The message says when to try again."""

    exit_code = 4


@dataclass(frozen=True, slots=True)
class Permit:
    """The right to make one call. `epoch` is the breaker's when it gave the permit."""

    epoch: int


@dataclass(frozen=True, slots=True)
class Circuit:
    """A breaker's state. Each method returns the next one; `now` is the time of any clock that never goes back, in seconds.

    `epoch` counts the changes of state, `since` is the time of the last one. `failures` in a row count while it is closed,
    `successes` and `calls` under way while it is half-open.
    """

    policy: CircuitPolicy = DEFAULT_POLICY
    state: CircuitState = CircuitState.CLOSED
    epoch: int = 0
    since: float = float("-inf")
    failures: int = 0
    successes: int = 0
    calls: int = 0

    def at(self, now: float) -> "Circuit":
        """The state at this time: an open breaker is half-open once it has waited."""
        if self.state is CircuitState.OPEN and now - self.since >= self.policy.wait_duration_s:
            return self._changed(CircuitState.HALF_OPEN, self.since + self.policy.wait_duration_s)
        return self

    def acquire(self, now: float) -> tuple["Circuit", Permit | None]:
        """Ask to make a call; None if it is not permitted. Each permit must come back, by `record` or `release`."""
        current = self.at(now)
        if current.state is CircuitState.OPEN:
            return current, None
        if current.state is CircuitState.HALF_OPEN:
            if current.calls >= current.policy.permitted_calls:
                return current, None
            current = replace(current, calls=current.calls + 1)
        return current, Permit(current.epoch)

    def record(self, permit: Permit, *, success: bool, now: float) -> "Circuit":
        """The permitted call has ended so."""
        current = self.release(permit, now)
        if permit.epoch != current.epoch:
            return current
        if current.state is CircuitState.CLOSED:
            failures = 0 if success else current.failures + 1
            if failures >= current.policy.failure_threshold:
                return current._changed(CircuitState.OPEN, now)
            return replace(current, failures=failures)
        if not success:
            return current._changed(CircuitState.OPEN, now)
        if current.successes + 1 >= current.policy.success_threshold:
            return current._changed(CircuitState.CLOSED, now)
        return replace(current, successes=current.successes + 1)

    def release(self, permit: Permit, now: float) -> "Circuit":
        """The permitted call was not made, or says nothing about the service."""
        current = self.at(now)
        if permit.epoch == current.epoch and current.state is CircuitState.HALF_OPEN:
            return replace(current, calls=current.calls - 1)
        return current

    def retry_after_s(self, now: float) -> float:
        """After how many seconds a call may be permitted; 0 if one may be now."""
        current = self.at(now)
        if current.state is not CircuitState.OPEN:
            return 0.0
        return max(0.0, current.since + current.policy.wait_duration_s - now)

    def _changed(self, state: CircuitState, now: float) -> "Circuit":
        return Circuit(self.policy, state, self.epoch + 1, now)


OnTransition = Callable[[str, CircuitState, CircuitState], None]
"""Called with the breaker's name, the state before and the state now; outside of any lock."""


class CircuitBreaker:
    """A breaker that threads and tasks share. `failures` are the exceptions that count; others are successes of the service.

    >>> payments = CircuitBreaker("payments", failures=(httpx.TransportError,))
    >>> with payments.call():
    ...     httpx.post("http://payments/charge")
    >>> @payments.protected
    ... def charge(): ...
    """

    def __init__(
        self,
        name: str,
        policy: CircuitPolicy = DEFAULT_POLICY,
        *,
        failures: tuple[type[BaseException], ...] = (Exception,),
        on_transition: OnTransition = lambda name, before, after: None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.name = name
        self._failures, self._on_transition, self._clock = failures, on_transition, clock
        self._circuit = Circuit(policy)
        self._lock = Lock()

    @property
    def state(self) -> CircuitState:
        """The state now."""
        return self._circuit.at(self._clock()).state

    @contextmanager
    def call(self) -> Iterator[None]:
        """Make a call in the block. CallNotPermitted when it must not be made; a task that is cancelled counts as neither."""
        permit = self._acquire()
        try:
            yield
        except BaseException as error:
            if isinstance(error, self._failures):
                self._move(lambda circuit, now: circuit.record(permit, success=False, now=now))
            elif isinstance(error, Exception):
                self._move(lambda circuit, now: circuit.record(permit, success=True, now=now))
            else:
                self._move(lambda circuit, now: circuit.release(permit, now))
            raise
        self._move(lambda circuit, now: circuit.record(permit, success=True, now=now))

    def protected(self, function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
        """A decorator: each call of the function is a call through the breaker. For coroutines see `call`."""

        @wraps(function)
        def protected(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
            guarded: AbstractContextManager[None] = self.call()
            with guarded:
                return function(*args, **kwargs)

        return protected

    def _acquire(self) -> Permit:
        permit: Permit | None = None

        def acquire(circuit: Circuit, now: float) -> Circuit:
            nonlocal permit
            circuit, permit = circuit.acquire(now)
            return circuit

        self._move(acquire)
        if permit is None:
            wait_s = self._circuit.retry_after_s(self._clock())
            raise CallNotPermitted(f"the circuit breaker of {self.name} is {self.state}: try again in {wait_s:.0f} s")
        return permit

    def _move(self, step: Callable[[Circuit, float], Circuit]) -> None:
        with self._lock:
            before, now = self._circuit, self._clock()
            waited = before.at(now)
            after = self._circuit = step(waited, now)
        for one, other in ((before, waited), (waited, after)):
            if one.state is not other.state:
                self._on_transition(self.name, one.state, other.state)
