"""The counters of a publisher."""

import threading
from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class Counts:
    """What a publisher did since it was made, in events; published - acknowledged - failed are still on their way.

    `published` were accepted by the publisher, `acknowledged` are in the log, `failed` were accepted and then
    refused or not acknowledged in time, `dropped` were never accepted (policy "drop" only).
    """

    published: int = 0
    acknowledged: int = 0
    failed: int = 0
    dropped: int = 0


class Counters:
    """Counters that several threads may increment."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts = dict.fromkeys((field.name for field in fields(Counts)), 0)

    def add(self, name: str, count: int = 1) -> None:
        """Add to one of the counters of `Counts`."""
        with self._lock:
            self._counts[name] += count

    def now(self) -> Counts:
        """All counters at one moment."""
        with self._lock:
            return Counts(**self._counts)
