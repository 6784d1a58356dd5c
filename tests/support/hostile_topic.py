"""A topic of traces whose record batches hold far more than a worker's memory, with good records in between."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from typing import Any, Final

from spanfold.language.events import DomainEvent
from spanfold.language.partitioning import partitions_of
from spanfold.language.records import headers_of, key_of
from spanfold.language.settings import Settings
from spanfold.language.topics import TRACES, Topic
from spanfold.schemas.codec import Codec
from tests.support.raw_batches import RawRecord, Repeated, produce_raw, record_batch

MB: Final = 1_000_000


def raw(event: DomainEvent) -> RawRecord:
    """The event's record."""
    headers: Sequence[Any] = [(name.encode(), value) for name, value in headers_of(event)]
    return RawRecord(key_of(event), Codec().encode(event.event_type, event.as_fields()), headers)


def large_header(key: bytes) -> RawRecord:
    """No event id, and one header of 270 MB."""
    return RawRecord(key, b"value", [(b"padding", Repeated(b"a", 270 * MB))])


def large_value(event: DomainEvent, size: int = 1000 * MB) -> RawRecord:
    """The event's record with another value, of 1 GB."""
    good = raw(event)
    return RawRecord(good.key, Repeated(b"v", size), good.headers)


def with_neighbours(good: Sequence[DomainEvent], hostile: Sequence[RawRecord]) -> Iterator[RawRecord]:
    """The hostile records among the good ones: one before, one between each two, the rest behind."""
    others = iter(good)
    for record in hostile:
        yield raw(next(others))
        yield record
    yield from map(raw, others)


def of_one_partition(events: Sequence[DomainEvent], partitions: int) -> tuple[int, list[DomainEvent]]:
    """The partition of the first of these events, and those that belong to it."""
    homes = partitions_of([key_of(event) for event in events], partitions).tolist()
    return homes[0], [event for event, home in zip(events, homes, strict=True) if home == homes[0]]


def produce_batch(
    settings: Settings, partition: int, records: Iterator[RawRecord], codec: str = "zstd", topic: Topic = TRACES
) -> int:
    """All in one batch of the topic; returns the offset of the first."""
    batch, on_broker = record_batch(records, codec, at_ms=time.time_ns() // MB), topic.on_broker(settings.topic_prefix)
    assert settings.kafka_bootstrap
    return asyncio.run(produce_raw(settings.kafka_bootstrap, on_broker, partition, batch))
