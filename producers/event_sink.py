"""How exporters and handlers publish without ever disturbing the application that they live in."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final, TypeVar

from spanfold.language import throttled_log
from spanfold.language.errors import Misconfigured, SpanfoldError
from spanfold.language.throttled_log import ThrottledLog
from spanfold.producers.counts import Counters, Counts
from spanfold.producers.delivery import Delivery
from spanfold.producers.publisher import TelemetryPublisher

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from spanfold.language.events import DomainEvent
    from spanfold.language.topics import Topic
    from spanfold.producers.delivery import OnDelivery, Outcome

DELIVERY_S: Final = 10.0
"""How long an exporter waits for Kafka's acknowledgements by default."""

Item = TypeVar("Item")


class PendingDeliveries:
    """The events of one export that have no outcome yet."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._pending = 0
        self._all_delivered = True

    def expect(self) -> None:
        """One more event was handed to the publisher."""
        with self._changed:
            self._pending += 1

    def settle(self, outcome: Outcome | None) -> None:
        """The outcome of one event; None when the publisher did not accept it."""
        with self._changed:
            self._pending -= 1
            self._all_delivered &= isinstance(outcome, Delivery)
            self._changed.notify_all()

    def fail(self) -> None:
        """An event could not be sent at all."""
        self._all_delivered = False

    def wait(self, timeout_s: float) -> bool:
        """Whether all events were delivered within the time."""
        with self._changed:
            settled = self._changed.wait_for(lambda: self._pending == 0, timeout_s)
            return settled and self._all_delivered


class EventSink:
    """Publishes the events of one kind of `item` (a span, a log record). Nothing raises; errors are logged, at most one line in
    ten seconds. With the publisher that it makes itself (policy "drop") `send` never waits either.
    """

    def __init__(self, item: str, publisher: TelemetryPublisher | None) -> None:
        """Publish through `publisher`, which its owner closes; without one, make one and close it with this. Where no Kafka is
        named, the log says so once and everything is dropped.
        """
        self.publisher = publisher or _publisher()
        self._owns_publisher = publisher is None
        self._item = item
        self._log = ThrottledLog("spanfold.opentelemetry")
        self._busy = threading.local()
        self._closed = False

    @staticmethod
    def is_own_logger(logger: str) -> bool:
        """Whether spanfold itself writes to this logger: publishing those lines would produce more of them."""
        return logger in throttled_log.NAMES

    def send(
        self, item: Item, events_of: Callable[[Item], Iterable[DomainEvent]], pending: PendingDeliveries | None = None
    ) -> None:
        """Publish the item's events, unless this thread is doing so already; `pending` gets the outcome of each."""
        # an instrumented Kafka client makes a span or a log record of each publish, which must not be published in turn
        if getattr(self._busy, "sending", False):
            return
        self._busy.sending = True
        try:
            for event in events_of(item):
                self._publish(event, pending)
        except Exception as error:  # whatever it is, the application goes on
            self._log_failure(pending, error)
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
        pending, deadline = PendingDeliveries(), time.monotonic() + timeout_s
        try:
            for item in items:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"no time left after {timeout_s:g} s")
                self.send(item, events_of, pending)
        except Exception as error:
            self._log_failure(pending, error)
        return pending.wait(max(deadline - time.monotonic(), 0))

    def flush(self, timeout_s: float) -> bool:
        """Whether everything published so far has its outcome within the time."""
        return self.publisher.flush(timeout_s) == 0

    def close(self, timeout_s: float) -> None:
        """Flush, for `timeout_s` at most; `deliver` fails from now on."""
        self._closed = True
        if self._owns_publisher:
            self.publisher.close(timeout_s)
        else:
            self.publisher.flush(timeout_s)

    def _publish(self, event: DomainEvent, pending: PendingDeliveries | None) -> None:
        if pending is None:
            self.publisher.publish(event)
            return
        pending.expect()
        accepted = False
        try:
            accepted = self.publisher.publish(event, on_delivery=pending.settle)
        finally:
            if not accepted:
                pending.settle(None)

    def _log_failure(self, pending: PendingDeliveries | None, error: Exception) -> None:
        if pending:
            pending.fail()
        self._log.warning(f"a {self._item} was not published", reason=repr(error))


def _publisher() -> TelemetryPublisher:
    """One that never waits, on the Kafka that the environment names; one that drops everything where it names none or a setting
    is invalid, and the log says so once.
    """
    from pydantic import ValidationError

    from spanfold.language.settings import settings

    try:
        return TelemetryPublisher(settings(), on_full="drop")
    except (SpanfoldError, ValidationError) as error:
        reason = " ".join(str(error).split())
        ThrottledLog("spanfold.publisher").warning("nothing will be published", reason=reason)
        return _Nowhere(reason)


class _Nowhere(TelemetryPublisher):
    """Drops every event, and counts it."""

    def __init__(self, reason: str) -> None:
        self._reason, self._dropped = reason, Counters()

    def publish(
        self, event: DomainEvent, traceparent: str | None = None, on_delivery: OnDelivery | None = None
    ) -> bool:
        self._dropped.add("dropped")
        return False

    def publish_and_wait(
        self,
        event: DomainEvent,
        traceparent: str | None = None,
        *,
        topic: Topic | None = None,
        timeout_s: float = 30.0,
    ) -> Delivery:
        raise Misconfigured(self._reason)

    async def apublish(self, event: DomainEvent, traceparent: str | None = None) -> Delivery:
        raise Misconfigured(self._reason)

    def flush(self, timeout_s: float = 10.0) -> int:
        return 0

    def counts(self) -> Counts:
        return self._dropped.now()

    def close(self, timeout_s: float = 10.0) -> int:
        return 0
