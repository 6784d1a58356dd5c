"""Publishes events: encoded here, sent by librdkafka in the background, idempotent, compressed, in bounded memory."""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, Self
from weakref import WeakKeyDictionary

from confluent_kafka import KafkaError, KafkaException, Message

from spanfold.language.errors import InvalidInput, LogUnavailable, SpanfoldError
from spanfold.language.records import headers_of, key_of
from spanfold.language.throttled_log import ThrottledLog
from spanfold.producers import child_exit
from spanfold.producers.child_exit import EXIT_FLUSH_S
from spanfold.producers.connection import MAX_EVENT_BYTES, Connection, Report
from spanfold.producers.counts import Counters, Counts
from spanfold.producers.delivery import Delivery, LoopWaiter, OnDelivery, Outcome, outcome_of
from spanfold.schemas.codec import Codec

if TYPE_CHECKING:
    from spanfold.language.events import DomainEvent
    from spanfold.language.settings import Settings
    from spanfold.language.topics import Topic

OnFull = Literal["block", "drop"]
_RETRY_S: Final = 0.01


@dataclass(frozen=True, slots=True)
class _Record:
    topic: str
    key: bytes
    value: bytes
    headers: list[tuple[str, str | bytes | None]]


class TelemetryPublisher:
    """Publishes events of every topic. Safe to share between threads and event loops.

    An accepted event is kept in memory (at most connection.BUFFER_EVENTS events and
    connection.BUFFER_BYTES) and sent until `message_timeout_s` has passed; then it counts as `failed` and is
    logged. `on_full` decides what happens when Kafka is away and that buffer is full:

    - `on_full="block"`: publish() waits up to `block_timeout_s` for room, then raises LogUnavailable;
    - `on_full="drop"`: publish() never waits and never raises: the event counts as `dropped`, and the log
      says so (logger `spanfold.publisher`, at most one line in ten seconds). An event that can't be encoded
      is dropped too.

    publish_and_wait() and apublish() return the outcome of their one event and raise under both policies. Publishing an
    event again is safe: its id is derived from its content, and readers of the log count it once.

    After os.fork() the child's publisher starts empty, with a connection of its own made at its first event;
    what the parent had not sent yet remains the parent's. Close it, or use it in a `with` or `async with`;
    one that is open when the interpreter exits, or a child of multiprocessing ends, is flushed for EXIT_FLUSH_S
    at most, and the log says how many events were lost. Topics are not created here: see topics.ensure_topics.
    """

    def __init__(
        self,
        settings: Settings | str,
        *,
        on_full: OnFull = "block",
        block_timeout_s: float = 10.0,
        linger_ms: float = 20.0,
        message_timeout_s: float = 120.0,
        codec: Codec | None = None,
    ) -> None:
        """`settings`, or Kafka's host:port. `linger_ms` is how long an event may wait for others to share its batch."""
        self._settings = _settings_for(settings) if isinstance(settings, str) else settings
        self._on_full, self._block_timeout_s = on_full, block_timeout_s
        self._linger_ms, self._message_timeout_s = linger_ms, message_timeout_s
        self._codec = codec or Codec()
        self._topics: dict[str, str] = {}
        self._closed = False
        self._start_empty()
        self._connection: Connection | None = self._connect()
        _OPEN.add(self)

    def publish(
        self, event: DomainEvent, traceparent: str | None = None, on_delivery: OnDelivery | None = None
    ) -> bool:
        """Accept the event and return; `on_delivery` gets its outcome later, if it was accepted.

        Under "block": InvalidInput when it can't be encoded or is larger than connection.MAX_EVENT_BYTES,
        LogUnavailable when there was no room in time. Under "drop": never raises; returns whether it was
        accepted.
        """
        try:
            self._wait_for_room(self._record(event, traceparent), on_delivery)
        except SpanfoldError as error:
            if self._on_full == "block":
                raise
            self._counters.add("dropped")
            self._log.warning("an event was dropped", event_type=event.event_type, reason=str(error))
            return False
        return True

    def publish_and_wait(
        self,
        event: DomainEvent,
        traceparent: str | None = None,
        *,
        topic: Topic | None = None,
        timeout_s: float = 30.0,
    ) -> Delivery:
        """Return the event's position in the log. `topic` names one of those that carry the event, if several do.

        LogUnavailable after `timeout_s`: it may still arrive; a retry is safe. Misconfigured when Kafka refuses this client.
        """
        settled = threading.Event()
        outcomes: list[Outcome] = []

        def on_delivery(outcome: Outcome) -> None:
            outcomes.append(outcome)
            settled.set()

        self._wait_for_room(self._record(event, traceparent, topic), on_delivery)
        if not settled.wait(timeout_s):
            late = LogUnavailable(f"Kafka did not acknowledge within {timeout_s} s; it still may, and a retry is safe")
            raise self._explained(late)
        if isinstance(outcomes[0], Delivery):
            return outcomes[0]
        raise outcomes[0]

    async def apublish(self, event: DomainEvent, traceparent: str | None = None) -> Delivery:
        """Like publish_and_wait, without a thread: resolves when Kafka has acknowledged, or the message timed out."""
        return await self._sent(self._record(event, traceparent))

    async def _sent(self, record: _Record) -> Delivery:
        loop = asyncio.get_running_loop()
        waiter = self._waiters.get(loop) or self._waiters.setdefault(loop, LoopWaiter(loop))
        future, on_delivery = waiter.expect()
        deadline = loop.time() + self._room_timeout_s
        while not self._offer(record, on_delivery):
            if loop.time() >= deadline:
                raise self._explained(self._no_room())
            await asyncio.sleep(_RETRY_S)
        return await future

    def flush(self, timeout_s: float = 10.0) -> int:
        """Wait until everything accepted has its outcome; returns how many events have none after
        `timeout_s`.
        """
        return self._connection.flush(timeout_s) if self._connection else 0

    async def aflush(self, timeout_s: float = 10.0) -> int:
        """flush() without blocking the event loop."""
        return await asyncio.to_thread(self.flush, timeout_s)

    def counts(self) -> Counts:
        """The counters now."""
        return self._counters.now()

    def close(self, timeout_s: float = 10.0) -> int:
        """Flush, give up on what is unsent after `timeout_s` (it counts as failed), and disconnect; idempotent.

        Returns how many events were given up.
        """
        self._closed = True
        _OPEN.discard(self)
        connection, self._connection = self._connection, None
        unsent = connection.close(timeout_s) if connection else 0
        if unsent:
            self._log.warning("the publisher was closed with unsent events", unsent=unsent)
        return unsent

    async def aclose(self, timeout_s: float = 10.0) -> int:
        """close() without blocking the event loop."""
        return await asyncio.to_thread(self.close, timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    @property
    def _room_timeout_s(self) -> float:
        return self._block_timeout_s if self._on_full == "block" else 0.0

    def _record(self, event: DomainEvent, traceparent: str | None, topic: Topic | None = None) -> _Record:
        topic = topic or event.topic
        broker_name = self._topics.get(topic.name)
        if broker_name is None:
            broker_name = self._topics.setdefault(topic.name, topic.on_broker(self._settings.topic_prefix))
        value = self._codec.encode(event.event_type, event.as_fields())
        return _Record(broker_name, key_of(event), value, list(headers_of(event, traceparent)))

    def _wait_for_room(self, record: _Record, on_delivery: OnDelivery | None) -> None:
        if self._offer(record, on_delivery):
            return
        deadline = time.monotonic() + self._room_timeout_s
        while time.monotonic() < deadline:
            time.sleep(_RETRY_S)
            if self._offer(record, on_delivery):
                return
        raise self._explained(self._no_room())

    def _offer(self, record: _Record, on_delivery: OnDelivery | None) -> bool:
        """Whether the record was accepted; False when there is no room for it now."""
        connection = self._connected()
        self._counters.add("published")
        try:
            connection.producer.produce(
                record.topic, record.value, record.key, headers=record.headers, on_delivery=self._report(on_delivery)
            )
        except BufferError:
            self._counters.add("published", -1)
            return False
        except KafkaException as error:
            self._counters.add("published", -1)
            return self._refused(connection, record, error.args[0])
        return True

    def _refused(self, connection: Connection, record: _Record, cause: KafkaError) -> bool:
        if cause.code() == KafkaError.MSG_SIZE_TOO_LARGE:
            raise InvalidInput(
                f"an event of {len(record.value):,} bytes is too large for {record.topic}, "
                f"which takes {MAX_EVENT_BYTES:,}: shorten its tags or events"
            )
        if cause.code() == KafkaError._FATAL:
            # an idempotent producer that lost its sequence number never recovers: replace it
            self._replace(connection)
            return False
        raise LogUnavailable(f"{record.topic}: {cause.str()}")

    def _report(self, on_delivery: OnDelivery | None) -> Report:
        if on_delivery is None:
            return self._on_report
        return lambda error, message: self._on_report(error, message, on_delivery)

    def _on_report(self, error: KafkaError | None, message: Message, on_delivery: OnDelivery | None = None) -> None:
        if error is None and on_delivery is None:
            self._counters.add("acknowledged")
            return
        outcome = outcome_of(error, message)
        self._counters.add("acknowledged" if isinstance(outcome, Delivery) else "failed")
        if not isinstance(outcome, Delivery):
            outcome = self._explained(outcome)
            self._log.warning("an event was not delivered", reason=str(outcome))
        if on_delivery:
            on_delivery(outcome)

    def _connected(self) -> Connection:
        connection = self._connection
        if connection is None:
            with self._lock:
                if self._closed:
                    raise InvalidInput("this publisher is closed: make another")
                connection = self._connection = self._connection or self._connect()
        return connection

    def _connect(self) -> Connection:
        child_exit.publishes()
        return Connection(self._settings, linger_ms=self._linger_ms, message_timeout_s=self._message_timeout_s)

    def _replace(self, broken: Connection) -> None:
        with self._lock:
            if self._connection is broken:
                self._connection = self._connect()
        broken.close(0)

    def _explained(self, error: SpanfoldError) -> SpanfoldError:
        connection = self._connection
        return connection.error_log.explained(error) if connection else error

    def _no_room(self) -> LogUnavailable:
        return LogUnavailable(
            f"Kafka at {self._settings.kafka_bootstrap} accepts no events and the publisher's buffer is full"
        )

    def _start_empty(self) -> None:
        self._lock = threading.Lock()
        self._counters = Counters()
        self._log = ThrottledLog("spanfold.publisher")
        self._waiters: WeakKeyDictionary[asyncio.AbstractEventLoop, LoopWaiter] = WeakKeyDictionary()

    def _after_fork(self) -> None:
        """In the child process: librdkafka's threads exist in the parent only, so its handle is never used or destroyed."""
        self._start_empty()
        if self._connection:
            self._connection.abandon()
            self._connection = None


def _settings_for(kafka_bootstrap: str) -> Settings:
    from spanfold.language.settings import Settings  # pydantic takes longer to import than all the rest

    return Settings(kafka_bootstrap=kafka_bootstrap)


_OPEN: Final[set[TelemetryPublisher]] = set()


def _close_all() -> None:
    deadline = time.monotonic() + EXIT_FLUSH_S
    for publisher in list(_OPEN):
        publisher.close(max(deadline - time.monotonic(), 0.0))


def _flush_all(timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    for publisher in list(_OPEN):
        if unsent := publisher.flush(max(deadline - time.monotonic(), 0.0)):
            publisher._log.warning("a child process ends with unsent events", unsent=unsent)


def _after_fork_in_child() -> None:
    for publisher in list(_OPEN):
        publisher._after_fork()


atexit.register(_close_all)
child_exit.flush_at_child_exit(_flush_all)
os.register_at_fork(after_in_child=_after_fork_in_child)
