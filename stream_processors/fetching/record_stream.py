"""Records of partitions between two offsets, read ahead in a thread with an event loop of its own. No group, nothing committed.

It is aiokafka's consumer and not librdkafka's, which the rest of such a process uses: librdkafka decompresses whole batches.
"""

import asyncio
import logging
import queue
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaConnectionError, KafkaError

from spanfold.kafka.log_ends import BrokerPartition
from spanfold.kafka.security import ssl_context, uses_sasl
from spanfold.language.errors import LogUnavailable
from spanfold.language.settings import Settings
from spanfold.stream_processors.fetching.fetcher import use_bounded_memory

PARTS_AHEAD: Final = 2
"""So many polls are read ahead."""

_POLL_MS: Final = 500
_RETRY_S: Final = 0.5
_STOP_S: Final = 10.0

# its lines come several a second while Kafka is away; a process that logs them has a handler of its own
logging.getLogger("aiokafka").addHandler(logging.NullHandler())


@dataclass(frozen=True, slots=True)
class Polled:
    """What one poll covers of a partition: all committed records in [start, end)."""

    records: Sequence[Any]
    start: int
    end: int


Poll = Mapping[BrokerPartition, Polled]


class RecordStream:
    """One consumer, kept connected from one `read` to the next. Close it."""

    def __init__(self, settings: Settings) -> None:
        use_bounded_memory(settings.max_value_bytes)
        self._settings = settings
        self._loop = asyncio.new_event_loop()
        self._consumer: Any = None
        self._pumping: asyncio.Task[None] | None = None
        self._polls: queue.SimpleQueue[Poll | KafkaError] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._loop.run_forever, name="spanfold-records", daemon=True)
        self._thread.start()

    def read(self, ranges: Mapping[BrokerPartition, tuple[int, int]]) -> None:
        """From here on `next_poll` returns what lies in these ranges [start, end) of offsets, and nothing of earlier ones."""
        asyncio.run_coroutine_threadsafe(self._begin(dict(ranges)), self._loop).result()

    def next_poll(self, timeout_s: float) -> Poll:
        """What the next poll brought; empty when nothing came within this time. It may reach beyond the ranges. LogUnavailable
        when the log can't be read there.
        """
        try:
            polled = self._polls.get(timeout=timeout_s)
        except queue.Empty:
            return {}
        if isinstance(polled, KafkaError):
            raise LogUnavailable(f"the log can't be read: {polled}") from polled
        self._loop.call_soon_threadsafe(self._room.release)
        return polled

    def close(self) -> None:
        with suppress(TimeoutError):
            asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(_STOP_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_STOP_S)

    async def _begin(self, ranges: dict[BrokerPartition, tuple[int, int]]) -> None:
        await self._stop_pumping()
        self._polls = queue.SimpleQueue()
        self._room = asyncio.Semaphore(PARTS_AHEAD)
        self._pumping = asyncio.create_task(self._pump(ranges, self._polls, self._room))

    async def _stop_pumping(self) -> None:
        if self._pumping is not None:
            self._pumping.cancel()
            with suppress(asyncio.CancelledError):
                await self._pumping

    async def _end(self) -> None:
        await self._stop_pumping()
        if self._consumer is not None:
            await self._consumer.stop()

    async def _pump(
        self,
        ranges: dict[BrokerPartition, tuple[int, int]],
        polls: "queue.SimpleQueue[Poll | KafkaError]",
        room: asyncio.Semaphore,
    ) -> None:
        try:
            consumer = await self._connected()
            consumer.assign([TopicPartition(*partition) for partition in ranges])
            for partition, (start, _) in ranges.items():
                consumer.seek(TopicPartition(*partition), start)
            while ranges:
                await room.acquire()
                while not (poll := await self._poll(consumer, ranges)):
                    pass
                polls.put(poll)
        except KafkaError as error:
            polls.put(error)

    async def _connected(self) -> Any:
        while self._consumer is None:
            consumer = AIOKafkaConsumer(**_consumer_options(self._settings))
            try:
                await consumer.start()
            except KafkaConnectionError:
                # whoever waits decides for how long
                await consumer.stop()
                await asyncio.sleep(_RETRY_S)
            else:
                self._consumer = consumer
        return self._consumer

    async def _poll(self, consumer: Any, ranges: dict[BrokerPartition, tuple[int, int]]) -> Poll:
        """The next part of each partition that has one. Of `ranges` only the rest is left."""
        parts = await consumer.getmany(timeout_ms=_POLL_MS)
        poll: dict[BrokerPartition, Polled] = {}
        for partition, (start, end) in list(ranges.items()):
            place = TopicPartition(*partition)
            if (position := await consumer.position(place)) <= start:
                continue
            poll[partition] = Polled(parts.get(place, ()), start, position)
            ranges[partition] = (position, end)
            if position >= end:
                consumer.pause(place)
                del ranges[partition]
        return poll


def _consumer_options(settings: Settings) -> dict[str, Any]:
    options: dict[str, Any] = {
        "bootstrap_servers": settings.kafka_bootstrap,
        "client_id": "spanfold",
        "group_id": None,
        "enable_auto_commit": False,
        "auto_offset_reset": "none",
        "isolation_level": "read_committed",
        "max_poll_records": settings.batch_records,
        "max_partition_fetch_bytes": settings.fetch_bytes,
        "security_protocol": settings.kafka_security_protocol,
        "ssl_context": ssl_context(settings),
    }
    if uses_sasl(settings):
        options["sasl_mechanism"] = settings.kafka_sasl_mechanism
        options["sasl_plain_username"] = settings.kafka_sasl_username
        options["sasl_plain_password"] = settings.kafka_sasl_password.get_secret_value()
    return options
