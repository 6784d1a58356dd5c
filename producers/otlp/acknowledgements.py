"""One request's wait for Kafka."""

import asyncio
import threading

from spanfold.language.errors import SpanfoldError
from spanfold.producers.delivery import Delivery, Outcome


class Acknowledgements:
    """Counts the outcomes of one request's records, and wakes the event loop once, when the last one is there.

    `sent` moves on the loop's thread; `note` is called from the publisher's.
    """

    def __init__(self) -> None:
        self.sent = 0
        self.failure: SpanfoldError | None = None
        self._loop = asyncio.get_running_loop()
        self._all_told = asyncio.Event()
        self._lock = threading.Lock()
        self._told = 0
        self._expected: int | None = None

    def note(self, outcome: Outcome) -> None:
        """What became of one record."""
        with self._lock:
            self._told += 1
            if not isinstance(outcome, Delivery):
                self.failure = outcome
            last = self._told == self._expected
        if last:
            self._loop.call_soon_threadsafe(self._all_told.set)

    async def wait(self) -> None:
        """Return once Kafka has acknowledged all that was sent; raises the error of one that it has not.

        It takes no longer than the publisher's message time-out: then each record has its outcome.
        """
        with self._lock:
            self._expected = self.sent
            waiting = self._told < self._expected
        if waiting:
            await self._all_told.wait()
        if self.failure:
            raise self.failure
