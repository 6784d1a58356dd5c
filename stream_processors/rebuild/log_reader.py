"""Reads the log again between two offsets, bounded in memory.

Read by confluent-kafka with partitions assigned by hand: no group, no offsets committed, nothing that live workers notice.
"""

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Self, cast

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from spanfold.kafka.client import kafka_config
from spanfold.kafka.log_ends import Bounds, BrokerPartition, bounds_of
from spanfold.language.errors import LogUnavailable
from spanfold.language.settings import Settings
from spanfold.language.topics import TopicOnBroker
from spanfold.projections.commit.batch import Batch
from spanfold.projections.commit.cut import RecordHeaders

SILENCE_S: Final = 60.0
"""A log that sends nothing for so long, below its end, is taken for unavailable."""

ANSWER_S: Final = 10.0

POLL_S: Final = 0.5

_QUEUE_KIB: Final = 32 * 1024

_QUEUE_BATCHES: Final = 2
"""So many batches are read ahead: a waiting record takes far more memory than its bytes, which are all that _QUEUE_KIB counts."""

_QUEUE_LOOK_MS: Final = 50
"""So often the client looks whether the queue has room again; librdkafka's second would let a short queue run dry."""


@dataclass(frozen=True, slots=True)
class OffsetRange:
    """Offsets [start, end) of one partition."""

    topic: TopicOnBroker
    partition: int
    start: int
    end: int

    def __len__(self) -> int:
        return max(0, self.end - self.start)

    def __str__(self) -> str:
        return f"{self.topic.name}/{self.partition} {self.start} to {self.end}"


class LogReader:
    """A consumer of committed records, kept connected from one `batches` to the next. A context manager, or close it.

    Headers are left out by default: only verdicts need them, confluent-kafka copies each, and it does not survive a name that is
    not UTF-8.
    """

    def __init__(self, settings: Settings, *, with_headers: bool = False) -> None:
        self._with_headers = with_headers
        self._batch_records = settings.batch_records
        self._consumer = Consumer(_consumer_config(settings))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._consumer.close()

    def watermarks(self, topic: str, partition: int) -> Bounds:
        """The first offset that the log still has, and the one after the last. LogUnavailable when Kafka does not answer."""
        try:
            return bounds_of(self._consumer, topic, partition)
        except KafkaException as error:
            raise LogUnavailable(f"Kafka did not say what {topic}/{partition} holds: {error.args[0].str()}") from error

    def offsets_for_times(self, times_ms: Mapping[BrokerPartition, int]) -> dict[BrokerPartition, int | None]:
        """The first offset at or after a time (ms since 1970 UTC) of each partition; None where the log has nothing so late."""
        times = [TopicPartition(*partition, ms) for partition, ms in times_ms.items()]
        try:
            answers = self._consumer.offsets_for_times(times, timeout=ANSWER_S)
        except KafkaException as error:
            raise LogUnavailable(f"Kafka did not say what it had at that time: {error.args[0].str()}") from error
        for answer in answers:
            if answer.error is not None:
                raise LogUnavailable(f"Kafka did not say what {answer.topic} had at that time: {answer.error.str()}")
        return {(at.topic, at.partition): at.offset if at.offset >= 0 else None for at in answers}

    def batches(self, ranges: Sequence[OffsetRange], silence_s: float = SILENCE_S) -> Iterator[Batch]:
        """All committed records of these ranges, in offset order within each; together the batches of a partition cover its
        range without a gap. LogUnavailable when Kafka sends nothing for `silence_s`.
        """
        unread = {(offsets.topic.name, offsets.partition): offsets for offsets in ranges if offsets}
        self._consumer.assign([TopicPartition(*partition, offsets.start) for partition, offsets in unread.items()])
        last_came = time.monotonic()
        while unread:
            messages = self._consumer.consume(*self._at_most(unread.values()))
            if messages:
                last_came = time.monotonic()
            elif time.monotonic() - last_came > silence_s:
                rest = ", ".join(map(str, unread.values()))
                raise LogUnavailable(f"Kafka sent nothing for {silence_s:.0f} s; still unread: {rest}")
            for partition, its_messages in _by_partition(messages).items():
                if partition in unread:
                    yield from self._batch(unread, partition, its_messages)
        self._consumer.unassign()

    def _batch(
        self, unread: dict[BrokerPartition, OffsetRange], partition: BrokerPartition, messages: Sequence[Message]
    ) -> Iterator[Batch]:
        """What these messages cover of the partition's range, which is `unread` no more."""
        batch = _batch_of(unread[partition], messages, self._with_headers)
        unread[partition] = replace(unread[partition], start=batch.end)
        if batch.end > batch.start:
            yield batch
        if not unread[partition]:
            del unread[partition]
            self._consumer.incremental_unassign([TopicPartition(*partition)])

    def _at_most(self, unread: Collection[OffsetRange]) -> tuple[int, float]:
        """How many records to consume, and how long to wait for them: in vain where the log has holes."""
        offsets = sum(map(len, unread))
        return (self._batch_records, POLL_S) if offsets > self._batch_records else (offsets, POLL_S / 10)


def _consumer_config(settings: Settings) -> dict[str, object]:
    return kafka_config(settings) | {
        "group.id": f"{settings.group}-replay",  # the client needs a name; nothing is committed to it
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "enable.partition.eof": True,
        "isolation.level": "read_committed",
        "auto.offset.reset": "error",
        "queued.max.messages.kbytes": _QUEUE_KIB,
        "queued.min.messages": _QUEUE_BATCHES * settings.batch_records,
        "fetch.queue.backoff.ms": _QUEUE_LOOK_MS,
        "fetch.message.max.bytes": settings.fetch_bytes,
    }


def _by_partition(messages: Sequence[Message]) -> dict[BrokerPartition, list[Message]]:
    grouped: dict[BrokerPartition, list[Message]] = {}
    for message in messages:
        grouped.setdefault((str(message.topic()), int(message.partition() or 0)), []).append(message)
    return grouped


def _batch_of(offsets: OffsetRange, messages: Sequence[Message], with_headers: bool) -> Batch:
    """The records of these messages below the range's end. What a read reaches beyond its last record (the end of the
    partition, or a record after the range) is covered too: there is nothing in between.
    """
    end, records = offsets.start, []
    for message in messages:
        error = message.error()
        if error is not None and error.code() != KafkaError._PARTITION_EOF:
            raise LogUnavailable(f"{offsets.topic.name}/{offsets.partition} can't be read at {end}: {error.str()}")
        offset = int(message.offset() or 0)
        if error is None and offset < offsets.end:
            records.append(message)
            end = offset + 1
        else:
            end = min(offset, offsets.end)
    return Batch(
        topic=offsets.topic.topic,
        partition=offsets.partition,
        partitions=offsets.topic.partitions,
        start=offsets.start,
        end=end,
        offsets=[message.offset() for message in records],  # type: ignore[misc]
        log_times_ms=[message.timestamp()[1] for message in records],
        keys=[_bytes(message.key()) for message in records],
        headers=[_headers(message) for message in records] if with_headers else [()] * len(records),
        values=[_bytes(message.value()) for message in records],
    )


def _headers(message: Message) -> RecordHeaders:
    return cast(RecordHeaders, message.headers() or ())


def _bytes(value: str | bytes | None) -> bytes | None:
    return value.encode() if isinstance(value, str) else value
