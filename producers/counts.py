"""What a publisher counts."""

import threading
from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class Counts:
    """What a publisher did since it was made, in events; published - acknowledged - failed are still on their way.

    `published` were taken over by the publisher, `acknowledged` lie in the log, `failed` were taken over and
    not acknowledged in time or refused, `dropped` were never taken over (policy "drop" only).
    """

    published: int = 0
    acknowledged: int = 0
    failed: int = 0
    dropped: int = 0


class Counters:
    """Counts that threads may move at the same time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counted = dict.fromkeys((each.name for each in fields(Counts)), 0)

    def add(self, name: str, count: int = 1) -> None:
        """Move one of the counters of `Counts`."""
        with self._lock:
            self._counted[name] += count

    def now(self) -> Counts:
        """All of them, of one moment."""
        with self._lock:
            return Counts(**self._counted)
