"""The outcome of a record: its position in the log, or why it has none; handed to whoever waits for it."""

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from confluent_kafka import KafkaError, Message

from spanfold.language.errors import LogUnavailable, Misconfigured, SpanfoldError


@dataclass(frozen=True, slots=True)
class Delivery:
    """The record is in the log, on min.insync.replicas brokers. `topic` is the name on the broker."""

    topic: str
    partition: int
    offset: int


Outcome = Delivery | SpanfoldError
"""LogUnavailable: not acknowledged in time; a retry is safe, it is the same event. Misconfigured: refused for good."""

OnDelivery = Callable[[Outcome], None]
"""Called once per event, from a thread of the publisher or one that flushes it: it must be short and must not raise."""


def outcome_of(error: KafkaError | None, message: Message) -> Outcome:
    """The outcome in librdkafka's delivery report."""
    topic = message.topic() or ""
    if error is None:
        return Delivery(topic, message.partition() or 0, message.offset() or 0)
    if error.code() in (KafkaError._UNKNOWN_TOPIC, KafkaError.UNKNOWN_TOPIC_OR_PART):
        return Misconfigured(f"topic {topic} does not exist on this Kafka: create it with `spanfold migrate`")
    if error.code() in (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED):
        return Misconfigured(f"Kafka does not allow this client to write to {topic}: {error.str()}")
    return LogUnavailable(f"a record for {topic} was not acknowledged: {error.str()}")


class LoopWaiter:
    """Hands outcomes from the publisher's thread to futures of one event loop, waking the loop once for many."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._ready: deque[tuple[asyncio.Future[Delivery], Outcome]] = deque()
        self._lock = threading.Lock()
        self._awake = False

    def expect(self) -> tuple["asyncio.Future[Delivery]", OnDelivery]:
        """A future, and the callback that resolves it."""
        future: asyncio.Future[Delivery] = self._loop.create_future()
        return future, lambda outcome: self._put(future, outcome)

    def _put(self, future: "asyncio.Future[Delivery]", outcome: Outcome) -> None:
        with self._lock:
            self._ready.append((future, outcome))
            wake, self._awake = not self._awake, True
        if wake:
            with suppress(RuntimeError):  # the loop was closed: nobody waits any more
                self._loop.call_soon_threadsafe(self._resolve)

    def _resolve(self) -> None:
        with self._lock:
            ready, self._ready = self._ready, deque()
            self._awake = False
        for future, outcome in ready:
            if future.done():  # its caller was cancelled
                continue
            if isinstance(outcome, Delivery):
                future.set_result(outcome)
            else:
                future.set_exception(outcome)
