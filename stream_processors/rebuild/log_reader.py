"""Reads the log again between two offsets, bounded in memory.

Read with partitions assigned by hand: no group, no offsets committed, nothing that live workers notice.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Self

from confluent_kafka import Consumer, KafkaException, TopicPartition

from spanfold.kafka.client import kafka_config
from spanfold.kafka.log_ends import Bounds, BrokerPartition, bounds_of
from spanfold.language.errors import LogUnavailable
from spanfold.language.settings import Settings
from spanfold.language.topics import TopicOnBroker
from spanfold.projections.commit.batch import Batch
from spanfold.stream_processors.fetching.record_stream import Polled, RecordStream

SILENCE_S: Final = 60.0
"""A log that sends nothing for so long, below its end, is taken for unavailable."""

ANSWER_S: Final = 10.0

POLL_S: Final = 0.5


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
    """A consumer of committed records, kept connected from one `batches` to the next. A context manager, or close it. Values that
    are too large for SPANFOLD_MAX_VALUE_BYTES are cut.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        # asks for offsets, and reads no records: librdkafka decompresses whole batches, whatever they hold
        self._consumer = Consumer(_consumer_config(settings))
        self._stream: RecordStream | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()
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
        if not unread:
            return
        if self._stream is None:
            self._stream = RecordStream(self._settings)
        self._stream.read({partition: (offsets.start, offsets.end) for partition, offsets in unread.items()})
        last_came = time.monotonic()
        while unread:
            poll = self._stream.next_poll(min(POLL_S, silence_s))
            if poll:
                last_came = time.monotonic()
            elif time.monotonic() - last_came > silence_s:
                rest = ", ".join(map(str, unread.values()))
                raise LogUnavailable(f"Kafka sent nothing for {silence_s:.0f} s; still unread: {rest}")
            for partition, polled in poll.items():
                yield _batch_of(unread[partition], polled)
                unread[partition] = replace(unread[partition], start=min(polled.end, unread[partition].end))
                if not unread[partition]:
                    del unread[partition]


def _consumer_config(settings: Settings) -> dict[str, object]:
    return kafka_config(settings) | {
        "group.id": f"{settings.group}-replay",  # the client needs a name; nothing is committed to it
        "enable.auto.commit": False,
        "isolation.level": "read_committed",
    }


def _batch_of(offsets: OffsetRange, polled: Polled) -> Batch:
    """What was polled, up to the range's end."""
    records = [record for record in polled.records if record.offset < offsets.end]
    return Batch(
        topic=offsets.topic.topic,
        partition=offsets.partition,
        partitions=offsets.topic.partitions,
        start=offsets.start,
        end=min(polled.end, offsets.end),
        offsets=[record.offset for record in records],
        log_times_ms=[record.timestamp for record in records],
        keys=[record.key for record in records],
        headers=[record.headers for record in records],
        values=[record.value for record in records],
    )
