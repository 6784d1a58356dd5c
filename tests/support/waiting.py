"""The one way to wait for a condition."""

import time
from collections.abc import Callable
from typing import Final, TypeVar

Answer = TypeVar("Answer")

PATIENCE_S: Final = 90.0
"""Longer than anything here takes on a busy machine: only a test that fails waits so long."""

POLL_S: Final = 0.02


class ConditionNotMet(AssertionError):
    """What a test waited for did not come true in time."""


def until(
    condition: Callable[[], Answer | None],
    what: str,
    seen: Callable[[], object] | None = None,
    *,
    within_s: float = PATIENCE_S,
) -> Answer:
    """Wait until the condition's answer is true, and return that answer.

    Raises ConditionNotMet after `within_s`, with what `seen` returns then (without it: the condition's last answer). What
    the condition itself raises ends the wait at once.
    """
    deadline = time.monotonic() + within_s
    while not (answer := condition()):
        if time.monotonic() > deadline:
            raise ConditionNotMet(f"{what}: not within {within_s:g} s; seen last: {seen() if seen else answer}")
        time.sleep(POLL_S)
    return answer
