"""Events published to a test's topics."""

import random
import time
from collections.abc import Iterable

from spanfold.language.events import DomainEvent, MetricUpdated
from spanfold.language.settings import Settings
from spanfold.producers.publisher import TelemetryPublisher
from tests.support.load import Load, events


def publish_all(settings: Settings, events: Iterable[DomainEvent]) -> None:
    """Acknowledged when it returns."""
    with TelemetryPublisher(settings, block_timeout_s=60) as publisher:
        for event in events:
            publisher.publish(event)
        assert publisher.flush(60) == 0


def publish_metric(settings: Settings) -> None:
    """One point of a metric, which needs the trace topic for nothing."""
    at = time.time_ns() // 1000
    publish_all(
        settings,
        [MetricUpdated(aggregate_id="queue", occurred_at=at, source="t", name="n", service_name="shop", value=1)],
    )


def publish(settings: Settings, count: int, seed: int = 1) -> None:
    """So many events of every kind, some of them twice."""
    source = events(random.Random(seed), time.time_ns() // 1000)
    publish_all(settings, (next(source) for _ in range(count)))


def publish_mixed(settings: Settings, count: int, seed: int = 1) -> None:
    """At least so many events, with doubled, unreadable, settled and transactional records among them, as fast as it goes."""
    load = Load(settings, seed, count, per_second=1_000_000)
    load.start()
    load.finish()
