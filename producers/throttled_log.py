"""Warnings that a busy process can afford: one line for many."""

import logging
import threading
import time
from collections.abc import Callable
from typing import Any, Final

import structlog

EVERY_S: Final = 10.0

NAMES: Final[set[str]] = set()
"""The loggers that were made here."""


class ThrottledLog:
    """A structlog logger over the standard logging's `name`, so that nothing lands on stdout unasked.

    Of each message at most one line in EVERY_S is written; it says how many like it were held back before.
    """

    def __init__(self, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        NAMES.add(name)
        self._logger = structlog.wrap_logger(
            logging.getLogger(name),
            wrapper_class=structlog.stdlib.BoundLogger,
            processors=[structlog.processors.KeyValueRenderer(key_order=["event"])],
        )
        self._clock = clock
        self._lock = threading.Lock()
        self._held: dict[str, tuple[float, int]] = {}

    def warning(self, message: str, **facts: Any) -> None:
        """Write it, or hold it back and count it."""
        with self._lock:
            now = self._clock()
            last, held = self._held.get(message, (-EVERY_S, 0))
            due = now - last >= EVERY_S
            self._held[message] = (now, 0) if due else (last, held + 1)
        if due:
            self._logger.warning(message, **facts, **({"held_back": held} if held else {}))
