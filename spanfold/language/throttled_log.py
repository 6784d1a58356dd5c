"""Warnings that can't flood the log: one line for many alike."""

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Final, TextIO

EVERY_S: Final = 10.0
OUTAGE_S: Final = 300.0

NAMES: Final[set[str]] = set()
"""Names of the loggers that ThrottledLog writes to."""


class Throttle:
    """Lets each message pass once per EVERY_S; one that goes on and on passes ever more rarely, down to once per `longest_s`.
    Thread-safe.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, longest_s: float = EVERY_S) -> None:
        self._clock = clock
        self._longest_s = longest_s
        self._lock = threading.Lock()
        self._held: dict[str, _Held] = {}

    def passes(self, message: str) -> int | None:
        """The number of equal messages held back since the last one passed; None when this one is held back too."""
        with self._lock:
            now = self._clock()
            before = self._held.get(message)
            if before is None:
                self._held[message] = _Held(now, EVERY_S, 0)
                return 0
            if now - before.last < (before.pause_s if before.count else EVERY_S):
                self._held[message] = replace(before, count=before.count + 1)
                return None
            pause_s = min(2 * before.pause_s, self._longest_s) if before.count else EVERY_S
            self._held[message] = _Held(now, pause_s, 0)
            return before.count


@dataclass(frozen=True, slots=True)
class _Held:
    """A message that passed at `last`. `count` like it were held back since; if any, the next one passes `pause_s` later."""

    last: float
    pause_s: float
    count: int


class ThrottledLines(logging.Filter):
    """For a library's loggers: of the lines with the same message template, one per EVERY_S is written, in a long outage one per
    OUTAGE_S.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._throttle = Throttle(clock, OUTAGE_S)

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to write it; the line says how many were held back before."""
        held = self._throttle.passes(f"{record.name}: {record.msg}")
        if held:
            record.msg = f"{record.msg} ({held} like it were held back)"
        return held is not None


def throttle_loggers(library: str) -> None:
    """Throttle every logger that the library has created, at all levels. A filter on their parent would not see their lines."""
    lines = ThrottledLines()
    for name in list(logging.root.manager.loggerDict):
        if name == library or name.startswith(f"{library}."):
            logging.getLogger(name).addFilter(lines)


class UnfailingStream:
    """A text stream for log lines: one that can't be written, because the disk is full, is lost and raises nothing."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write it if possible."""
        with suppress(OSError):
            return self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush it if possible."""
        with suppress(OSError):
            self._stream.flush()


class ThrottledLog:
    """A logger of the standard logging, so that nothing lands on stdout unasked. A line is `event='…'`, then the facts as
    `name=value`.

    Of each message at most one line in EVERY_S is written; it says how many like it were held back before.
    """

    def __init__(self, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        NAMES.add(name)
        self._logger = logging.getLogger(name)
        self._throttle = Throttle(clock)

    def warning(self, message: str, **facts: Any) -> None:
        """Write it, or hold it back and count it."""
        held = self._throttle.passes(message)
        if held is not None:
            line = {"event": message, **facts, **({"held_back": held} if held else {})}
            self._logger.warning(" ".join(f"{name}={value!r}" for name, value in line.items()))
