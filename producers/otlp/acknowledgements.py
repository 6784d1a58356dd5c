"""Waits until Kafka has acknowledged the records of one request."""

import asyncio
import threading

from spanfold.language.errors import SpanfoldError
from spanfold.producers.delivery import Delivery, Outcome


class Acknowledgements:
    """Counts the outcomes of one request's records, and wakes the event loop once, at the last one.

    `sent` changes on the loop's thread; `note` is called from the publisher's.
    """

    def __init__(self) -> None:
        self.sent = 0
        self.failure: SpanfoldError | None = None
        self._loop = asyncio.get_running_loop()
        self._all_settled = asyncio.Event()
        self._lock = threading.Lock()
        self._settled = 0
        self._expected: int | None = None

    def note(self, outcome: Outcome) -> None:
        """The outcome of one record."""
        with self._lock:
            self._settled += 1
            if not isinstance(outcome, Delivery):
                self.failure = outcome
            last = self._settled == self._expected
        if last:
            self._loop.call_soon_threadsafe(self._all_settled.set)

    async def wait(self) -> None:
        """Return once Kafka has acknowledged all that was sent; raises the error of one that it has not.

        It takes no longer than the publisher's message time-out: then each record has its outcome.
        """
        with self._lock:
            self._expected = self.sent
            waiting = self._settled < self._expected
        if waiting:
            await self._all_settled.wait()
        if self.failure:
            raise self.failure
