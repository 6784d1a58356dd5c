"""Traces as stories: events that make up whole traces, and ways to publish them."""

import time
from collections.abc import Callable
from typing import Any

from confluent_kafka import Producer

from spanfold.language.events import SpanRecorded, TraceCompleted, TraceCreated, TraceEvent, TraceFailed
from spanfold.language.partitioning import partitions_of
from spanfold.language.settings import Settings
from spanfold.language.topics import TRACES


def stories(count: int) -> list[TraceEvent]:
    """`count` events of traces of five; they are of this moment, since the broker dates the records."""
    now, events = time.time_ns() // 1000, list[TraceEvent]()
    for number in range(-(-count // 5)):
        said: dict[str, Any] = {"aggregate_id": f"{number:032x}", "source": "test"}
        where: dict[str, Any] = {"service_name": f"service {number % 7}", "operation_name": "pay"}
        at = now + number
        events += [
            TraceCreated(occurred_at=at, start_time=at, tags={"number": number}, **said, **where),
            *(
                SpanRecorded(
                    occurred_at=at + end, span_id=f"{end}", parent_span_id=None, start_time=at, end_time=at + end,
                    status="error" if (number + end) % 3 == 0 else "ok", **said, **where,
                )
                for end in (1, 2, 9)
            ),
            TraceFailed(occurred_at=at + 5, end_time=at + 5, error="no", **said)
            if number % 4 == 0
            else TraceCompleted(occurred_at=at + 5, end_time=at + 5, **said),
        ]  # fmt: skip
    return events[:count]


Produce = Callable[..., None]


def raw_producer(settings: Settings, **config: Any) -> tuple[Producer, Produce]:
    """A producer without opinions, and its produce() into the trace topic; a key goes where it belongs."""
    producer = Producer({"bootstrap.servers": settings.kafka_bootstrap, "linger.ms": 5, **config})
    topic = TRACES.on_broker(settings.topic_prefix)

    def produce(value: bytes | None, key: bytes | None, headers: Any = None, partition: int | None = None) -> None:
        if partition is None:
            partition = int(partitions_of([key], settings.partitions)[0]) if key is not None else 0
        producer.produce(topic, value, key, partition, headers=headers)

    return producer, produce
