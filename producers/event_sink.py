"""How exporters and handlers reach the log without ever disturbing the application that they live in."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final, TypeVar

from spanfold.language import throttled_log
from spanfold.language.throttled_log import ThrottledLog
from spanfold.producers.delivery import Delivery
from spanfold.producers.publisher import TelemetryPublisher

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from spanfold.language.events import DomainEvent
    from spanfold.producers.delivery import Outcome

DELIVERY_S: Final = 10.0
"""How long an exporter waits for Kafka's acknowledgements when nobody says otherwise."""

Item = TypeVar("Item")


class Tally:
    """Counts what was sent until each of it has its outcome."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._pending = 0
        self._all_delivered = True

    def expect(self) -> None:
        """One more is on its way."""
        with self._changed:
            self._pending += 1

    def note(self, outcome: Outcome | None) -> None:
        """What became of one; None when it was never taken over."""
        with self._changed:
            self._pending -= 1
            self._all_delivered &= isinstance(outcome, Delivery)
            self._changed.notify_all()

    def refuse(self) -> None:
        """Something was not sent at all."""
        self._all_delivered = False

    def wait(self, timeout_s: float) -> bool:
        """Whether all of it was delivered within the time."""
        with self._changed:
            told = self._changed.wait_for(lambda: self._pending == 0, timeout_s)
            return told and self._all_delivered


class Outlet:
    """Publishes what can be made of `what`s. Nothing raises; trouble is logged, at most one line in ten seconds.

    With the publisher that it makes itself (policy "drop") `send` never waits either.
    """

    def __init__(self, what: str, publisher: TelemetryPublisher | None) -> None:
        """Publish through `publisher`, which its owner closes; without one, make one and close it with this."""
        self.publisher = publisher or _publisher()
        self._owns_publisher = publisher is None
        self._what = what
        self._log = ThrottledLog("spanfold.opentelemetry")
        self._busy = threading.local()
        self._closed = False

    @staticmethod
    def is_ours(logger: str) -> bool:
        """Whether publishing itself writes to this logger: to publish that would make more of it."""
        return logger in throttled_log.NAMES

    def send(self, item: Item, events_of: Callable[[Item], Iterable[DomainEvent]], tally: Tally | None = None) -> None:
        """Publish the item's events, unless this thread is doing so already; `tally` is told of each."""
        # an instrumented Kafka client makes a span or a log of each publish, which must not be published in its turn
        if getattr(self._busy, "sending", False):
            return
        self._busy.sending = True
        try:
            for event in events_of(item):
                self._publish(event, tally)
        except Exception as error:  # whatever it is, the application goes on
            self._complain(tally, error)
        finally:
            self._busy.sending = False

    def deliver(
        self, items: Iterable[Item], events_of: Callable[[Item], Iterable[DomainEvent]], timeout_s: float
    ) -> bool:
        """Publish the events of all items; whether Kafka acknowledged every one of them within `timeout_s`.

        An item that makes no event, or whose events can't be sent, doesn't hold up the others.
        """
        if self._closed:
            return False
        tally, deadline = Tally(), time.monotonic() + timeout_s
        try:
            for item in items:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"no time left after {timeout_s:g} s")
                self.send(item, events_of, tally)
        except Exception as error:
            self._complain(tally, error)
        return tally.wait(max(deadline - time.monotonic(), 0))

    def flush(self, timeout_s: float) -> bool:
        """Whether everything published so far has its outcome."""
        return self.publisher.flush(timeout_s) == 0

    def close(self, timeout_s: float) -> None:
        """Flush, for `timeout_s` at most; `deliver` fails from now on."""
        self._closed = True
        if self._owns_publisher:
            self.publisher.close(timeout_s)
        else:
            self.publisher.flush(timeout_s)

    def _publish(self, event: DomainEvent, tally: Tally | None) -> None:
        if tally is None:
            self.publisher.publish(event)
            return
        tally.expect()
        taken_over = False
        try:
            taken_over = self.publisher.publish(event, on_delivery=tally.note)
        finally:
            if not taken_over:
                tally.note(None)

    def _complain(self, tally: Tally | None, error: Exception) -> None:
        if tally:
            tally.refuse()
        self._log.warning(f"a {self._what} was not published", reason=repr(error))


def _publisher() -> TelemetryPublisher:
    """One that never waits, on the Kafka that the environment names."""
    from spanfold.language.settings import settings

    return TelemetryPublisher(settings(), on_full="drop")
