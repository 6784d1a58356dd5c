"""One librdkafka producer and the thread that serves its delivery reports."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from confluent_kafka import KafkaError, Message, Producer

from spanfold.kafka.client import kafka_config
from spanfold.kafka.kafka_errors import KafkaErrorLog

if TYPE_CHECKING:
    from spanfold.language.settings import Settings

Report = Callable[[KafkaError | None, Message], None]

BUFFER_EVENTS: Final = 100_000
BUFFER_BYTES: Final = 64 * 1024 * 1024
MAX_EVENT_BYTES: Final = 1_000_000
"""Of one record, with key and headers. Below the topics' max.message.bytes, so that Kafka accepts whatever is sent."""

_POLL_S: Final = 0.1


def producer_config(settings: Settings, *, linger_ms: float, message_timeout_s: float) -> dict[str, Any]:
    """librdkafka's settings for a publisher that loses no event that it has accepted while Kafka is up."""
    return kafka_config(settings) | {
        "enable.idempotence": True,
        "acks": "all",
        "compression.type": "lz4",
        # as Java's clients do: same key, same partition, in any language (spanfold.language.partitioning checks it)
        "partitioner": "murmur2_random",
        "linger.ms": linger_ms,
        "message.timeout.ms": int(message_timeout_s * 1000),
        "message.max.bytes": MAX_EVENT_BYTES,
        "queue.buffering.max.messages": BUFFER_EVENTS,
        "queue.buffering.max.kbytes": BUFFER_BYTES // 1024,
    }


class Connection:
    """A producer of this process. The thread is a daemon and ends with close()."""

    def __init__(self, settings: Settings, *, linger_ms: float, message_timeout_s: float) -> None:
        config = producer_config(settings, linger_ms=linger_ms, message_timeout_s=message_timeout_s)
        self.error_log: KafkaErrorLog = config["error_cb"]
        self.producer = Producer(config)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="spanfold-publisher", daemon=True)
        self._thread.start()

    def flush(self, timeout_s: float) -> int:
        """Wait for outcomes; returns how many records have none after `timeout_s`."""
        return self.producer.flush(timeout_s)

    def close(self, timeout_s: float) -> int:
        """Flush, then give up on the rest, whose reports say that they failed; returns how many those were."""
        unsent = self.flush(timeout_s)
        if unsent:
            self.producer.purge()
            self.producer.flush(1.0)
        self._stop.set()
        if threading.current_thread() is not self._thread:
            self._thread.join(10 * _POLL_S)
        return unsent

    def abandon(self) -> None:
        """Keep the handle alive for ever: destroying it waits for threads that a fork did not bring along."""
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self.producer))

    def _serve(self) -> None:
        while not self._stop.is_set():
            self.producer.poll(_POLL_S)
