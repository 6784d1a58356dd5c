"""Waiting for what a fault must have caused. A fault that did not bite fails its schedule: it would prove nothing."""

import time
from collections.abc import Callable
from typing import TypeVar

Said = TypeVar("Said")

PATIENCE_S = 45.0


class DidNotBite(AssertionError):
    """What should have happened did not."""


def until(condition: Callable[[], Said], what: str, within_s: float = PATIENCE_S) -> Said:
    """Wait until the condition says something true, and return that."""
    deadline = time.monotonic() + within_s
    while not (said := condition()):
        if time.monotonic() > deadline:
            raise DidNotBite(f"{what}: not within {within_s:g} s")
        time.sleep(0.02)
    return said
