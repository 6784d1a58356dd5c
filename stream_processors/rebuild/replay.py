"""Reads the log again between two positions, and loads a generation from it: bounded in memory, partitions in processes.

Read by confluent-kafka with partitions assigned by hand: no group, no offsets committed, nothing that live workers notice.
"""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any, Final, cast

import psycopg
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from spanfold.kafka.client import kafka_config
from spanfold.kafka.log_ends import Bounds, bounds_of
from spanfold.language.errors import LogUnavailable, SpanfoldError, StoreUnavailable
from spanfold.language.settings import Settings
from spanfold.language.topics import TopicOnBroker
from spanfold.projections.commit.batch import Batch, RecordHeaders
from spanfold.projections.generations.shadow import Shadow
from spanfold.projections.projection import installed
from spanfold.stream_processors.worker import gc_tuning

NOTHING_CAME_S: Final = 60.0
"""A log that answers nothing for so long, below its end, is away."""

ANSWER_S: Final = 10.0

_QUEUE_KIB: Final = 32 * 1024

_QUEUE_BATCHES: Final = 2
"""So many batches are read ahead: a waiting record takes far more memory than its bytes, which are all that _QUEUE_KIB counts."""

_QUEUE_LOOK_MS: Final = 50
"""So often it is looked whether the queue has room again; librdkafka's second would let a short queue run dry."""

_POLL_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class Stretch:
    """What is to be read of one partition: [start, end)."""

    topic: TopicOnBroker
    partition: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Target:
    """The generation that is loaded, in terms that a process can be told."""

    projection: str
    number: int
    schema: str
    dsn: str


class LogReader:
    """A consumer of committed records, kept connected from one `batches` to the next. Close it.

    Headers are left out unless they are asked for: only verdicts need them, confluent-kafka copies each, and it does not
    survive a name that is not UTF-8.
    """

    def __init__(self, settings: Settings, *, with_headers: bool = False) -> None:
        self._with_headers = with_headers
        self._batch_records = settings.batch_records
        self._consumer = Consumer(
            kafka_config(settings)
            | {
                "group.id": f"{settings.group}-replay",  # the client wants a name; nothing is committed to it
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
        )

    def close(self) -> None:
        self._consumer.close()

    def watermarks(self, topic: str, partition: int) -> Bounds:
        """The first offset that the log still has, and the one after the last. LogUnavailable when Kafka does not answer."""
        try:
            return bounds_of(self._consumer, topic, partition)
        except KafkaException as error:
            raise LogUnavailable(f"Kafka did not say what {topic}[{partition}] holds: {error.args[0].str()}") from error

    def offsets_for_times(self, asked: Sequence[TopicPartition]) -> dict[tuple[str, int], int | None]:
        """The first offset at or after a time (ms, given as the offset); None where the log has nothing so late."""
        try:
            found = self._consumer.offsets_for_times(list(asked), timeout=ANSWER_S)
        except KafkaException as error:
            raise LogUnavailable(f"Kafka did not say what it had at that time: {error.args[0].str()}") from error
        for each in found:
            if each.error is not None:
                raise LogUnavailable(f"Kafka did not say what {each.topic} had at that time: {each.error.str()}")
        return {(each.topic, each.partition): each.offset if each.offset >= 0 else None for each in found}

    def batches(self, stretches: Sequence[Stretch], patience_s: float = NOTHING_CAME_S) -> Iterator[Batch]:
        """All committed records of these stretches, in offset order within each; together the batches of a partition cover
        its stretch without a gap. LogUnavailable when Kafka sends nothing for `patience_s`.
        """
        left = {(each.topic.name, each.partition): each for each in stretches if each.start < each.end}
        self._consumer.assign([TopicPartition(name, number, each.start) for (name, number), each in left.items()])
        last_came = time.monotonic()
        while left:
            found = self._consumer.consume(*self._at_most(left.values()))
            if found:
                last_came = time.monotonic()
            elif time.monotonic() - last_came > patience_s:
                raise LogUnavailable(f"Kafka sent nothing for {patience_s:.0f} s; it has still to send {_words(left)}")
            for where, messages in _by_partition(found).items():
                if (stretch := left.get(where)) is not None:
                    batch = _batch(stretch, messages, self._with_headers)
                    left[where] = rest = Stretch(stretch.topic, stretch.partition, batch.end, stretch.end)
                    if batch.end > batch.start:
                        yield batch
                    if rest.start >= rest.end:
                        del left[where]
                        self._consumer.incremental_unassign([TopicPartition(*where)])
        self._consumer.unassign()

    def _at_most(self, left: Collection[Stretch]) -> tuple[int, float]:
        """How many records to ask for, and how long to wait for so many: it is waited in vain where the log has holes."""
        offsets = sum(each.end - each.start for each in left)
        return (self._batch_records, _POLL_S) if offsets > self._batch_records else (offsets, _POLL_S / 10)


def _words(left: Mapping[tuple[str, int], Stretch]) -> str:
    return ", ".join(f"{each.topic.name}[{each.partition}] {each.start} to {each.end}" for each in left.values())


def _by_partition(messages: Sequence[Message]) -> dict[tuple[str, int], list[Message]]:
    found: dict[tuple[str, int], list[Message]] = {}
    for message in messages:
        found.setdefault((str(message.topic()), int(message.partition() or 0)), []).append(message)
    return found


def _batch(stretch: Stretch, messages: Sequence[Message], with_headers: bool) -> Batch:
    """The records of these messages below the stretch's end. What a read reaches beyond its last record (the end of the
    partition, or a record after the stretch) is covered too: there is nothing in between.
    """
    end, records = stretch.start, []
    for message in messages:
        error = message.error()
        if error is not None and error.code() != KafkaError._PARTITION_EOF:
            raise LogUnavailable(f"{stretch.topic.name}[{stretch.partition}] can't be read at {end}: {error.str()}")
        offset = int(message.offset() or 0)
        if error is None and offset < stretch.end:
            records.append(message)
            end = offset + 1
        else:
            end = min(offset, stretch.end)
    return Batch(
        topic=stretch.topic.topic,
        partition=stretch.partition,
        partitions=stretch.topic.partitions,
        start=stretch.start,
        end=end,
        offsets=[message.offset() for message in records],  # type: ignore[misc]
        log_times_ms=[message.timestamp()[1] for message in records],
        keys=[_bytes(message.key()) for message in records],
        headers=[_headers(message) for message in records] if with_headers else [()] * len(records),
        values=[_bytes(message.value()) for message in records],
    )


def _headers(message: Message) -> RecordHeaders:
    return cast(RecordHeaders, message.headers() or ())


def _bytes(said: str | bytes | None) -> bytes | None:
    return said.encode() if isinstance(said, str) else said


def load(reader: LogReader, connection: psycopg.Connection[Any], shadow: Shadow, stretches: Sequence[Stretch]) -> None:
    """Fold these stretches into the shadow. While Postgres commits one batch, the next is decoded."""
    with ThreadPoolExecutor(1, thread_name_prefix="spanfold-load") as executor:
        committing: Future[None] | None = None
        for batch in reader.batches(stretches):
            prepared = shadow.prepare(batch)
            if committing is not None:
                committing.result()
            committing = executor.submit(shadow.commit, connection, prepared)
        if committing is not None:
            committing.result()


def load_in_processes(
    settings: Settings, target: Target, stretches: Sequence[Stretch], workers: int, tell: Callable[[], None]
) -> None:
    """Fold these stretches, each in one of `workers` processes; `tell` is called a few times a second meanwhile. The
    processes end with this one, however it ends. Raises what the first one that failed said.
    """
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_begin, initargs=(settings,))
    try:
        longest_first = sorted(stretches, key=lambda each: each.start - each.end)
        left = {pool.submit(_load_one, target, each) for each in longest_first if each.start < each.end}
        while left:
            done, left = wait(left, timeout=_POLL_S / 2, return_when=FIRST_COMPLETED)
            for future in done:
                future.result()
            tell()
    except BrokenProcessPool as error:
        raise SpanfoldError(
            "a process that was loading has been killed, perhaps for want of memory: call it again"
        ) from error
    finally:
        # on an error, and on Ctrl-C, nobody waits for the others: what they commit is right, and can be gone on from
        for process in list((pool._processes or {}).values()):
            process.terminate()
        pool.shutdown(wait=True, cancel_futures=True)


def _load_one(target: Target, stretch: Stretch) -> None:
    shadow = Shadow(installed()[target.projection], target.number, target.schema)
    try:
        with psycopg.connect(target.dsn, autocommit=True) as connection:
            # what a crash takes back is folded again: the checkpoints go with the rows
            connection.execute("SET synchronous_commit = off")
            load(_reader, connection, shadow, [stretch])
    except SpanfoldError as error:
        raise type(error)(str(error)) from None
    except psycopg.Error as error:
        raise StoreUnavailable(f"Postgres: {error.sqlstate or ''} {' '.join(str(error).split())}") from None


_reader: LogReader
"""A process of the pool has one for all of its stretches: a consumer that is closed leaves most of the memory behind that its
threads took, and the next one's threads take their own (an arena each, in glibc).
"""


def _begin(settings: Settings) -> None:
    """In a process of the pool: be quick, end when the parent does, and leave Ctrl-C to it."""
    global _reader
    gc_tuning.tune()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    _reader = LogReader(settings)
