import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from spanfold.language.errors import InvalidInput, LogUnavailable, Misconfigured
from spanfold.language.events import SpanRecorded
from spanfold.language.ids import id_text
from spanfold.language.partitioning import partitions_of
from spanfold.language.settings import Settings
from spanfold.producers.delivery import Delivery, Outcome
from spanfold.producers.publisher import TelemetryPublisher

Span = Callable[..., SpanRecorded]
ReadAll = Callable[[int], list[Any]]
Decoded = Callable[[Any], tuple[str, dict[str, Any]]]

NOBODY = "127.0.0.1:1"
"""A port where nothing listens."""


def test_what_is_published_lies_in_the_log_as_it_was(
    publisher: TelemetryPublisher, span: Span, read_all: ReadAll, decoded: Decoded
) -> None:
    event = span(7, tags={"http.status": 200, "ok": True, "ratio": 0.5, "hosts": ["a", "b"]})
    publisher.publish(event, traceparent="00-" + "1" * 32 + "-" + "2" * 16 + "-01")
    assert publisher.flush() == 0
    (message,) = read_all(1)
    assert decoded(message) == ("SpanRecorded", {**event.as_fields(), "events": [], "links": []})
    assert message.key() == event.aggregate_id.encode()
    headers = dict(message.headers())
    assert headers["event_id"] == id_text(event.event_id).encode()
    assert headers["traceparent"].startswith(b"00-1")


def test_every_key_goes_where_javas_murmur2_sends_it(
    publisher: TelemetryPublisher, settings: Settings, span: Span, read_all: ReadAll
) -> None:
    for number in range(300):
        publisher.publish(span(number, aggregate_id=f"trace {number} ü"))
    publisher.flush()
    found = read_all(300)
    assert len(found) == 300
    expected = partitions_of([each.key() for each in found], settings.partitions).tolist()
    assert [each.partition() for each in found] == expected
    assert len(set(expected)) == settings.partitions


def test_the_counters_and_the_positions_agree_with_the_log(
    publisher: TelemetryPublisher, span: Span, read_all: ReadAll
) -> None:
    outcomes: list[Outcome] = []
    for number in range(5000):
        publisher.publish(span(number), on_delivery=outcomes.append)
    assert publisher.flush() == 0
    counts = publisher.counts()
    assert (counts.published, counts.acknowledged, counts.failed, counts.dropped) == (5000, 5000, 0, 0)
    told = {(each.partition, each.offset) for each in outcomes if isinstance(each, Delivery)}
    assert told == {(each.partition(), each.offset()) for each in read_all(5000)}


def test_publish_and_wait_says_where(publisher: TelemetryPublisher, span: Span, topic_prefix: str) -> None:
    first, second = publisher.publish_and_wait(span(1)), publisher.publish_and_wait(span(1))
    assert first.topic == f"{topic_prefix}spanfold.traces"
    assert (second.partition, second.offset) == (first.partition, first.offset + 1)


async def test_many_can_wait_at_once_in_one_event_loop(settings: Settings, span: Span) -> None:
    async with TelemetryPublisher(settings, linger_ms=5) as publisher:
        deliveries = await asyncio.gather(*(publisher.apublish(span(number)) for number in range(2000)))
        assert len({(each.partition, each.offset) for each in deliveries}) == 2000
        assert await publisher.aflush() == 0


async def test_one_who_stops_waiting_disturbs_nobody(settings: Settings, span: Span) -> None:
    async with TelemetryPublisher(settings, linger_ms=50) as publisher:
        given_up = asyncio.create_task(publisher.apublish(span(1)))
        other = asyncio.create_task(publisher.apublish(span(2)))
        await asyncio.sleep(0.01)
        given_up.cancel()
        assert isinstance(await other, Delivery)


def test_a_value_too_large_is_the_callers_fault(publisher: TelemetryPublisher, span: Span) -> None:
    with pytest.raises(InvalidInput, match=r"1,1\d\d,\d{3} bytes is too large .* takes 1,000,000"):
        publisher.publish(span(1, tags={"body": "x" * 1_100_000}))
    assert publisher.counts().published == 0


def test_an_event_that_the_schema_refuses_is_the_callers_fault(publisher: TelemetryPublisher, span: Span) -> None:
    with pytest.raises(InvalidInput, match="SpanRecorded"):
        publisher.publish(span(1, operation_name=None))


def test_without_kafka_a_blocking_publisher_waits_and_then_says_so(span: Span) -> None:
    with TelemetryPublisher(NOBODY, block_timeout_s=0.3) as publisher:
        started = time.monotonic()
        with pytest.raises(LogUnavailable, match="buffer is full"):
            _fill(publisher, span)
        assert 0.3 <= time.monotonic() - started < 30
        assert publisher.counts().dropped == 0
        publisher.close(timeout_s=0.1)
    assert publisher.counts().failed == publisher.counts().published > 0


def test_without_kafka_a_dropping_publisher_never_waits_nor_raises(
    span: Span, caplog: pytest.LogCaptureFixture
) -> None:
    with TelemetryPublisher(NOBODY, on_full="drop") as publisher:
        _fill(publisher, span)
        publisher.publish(span(1, operation_name=None))
        counts = publisher.counts()
        assert counts.published > 0
        assert counts.dropped > 0
        assert counts.published + counts.dropped == FILLING + 1
        publisher.close(timeout_s=0.1)
    written = [each for each in caplog.records if "an event was dropped" in each.getMessage()]
    assert len(written) == 1


def test_without_kafka_what_was_taken_over_fails_when_its_time_is_up(
    span: Span, caplog: pytest.LogCaptureFixture
) -> None:
    with TelemetryPublisher(NOBODY, on_full="drop", message_timeout_s=0.5) as publisher:
        publisher.publish(span(1))
        assert publisher.flush(5) == 0
        assert publisher.counts().failed == 1
    assert "an event was not delivered" in caplog.text


async def test_without_kafka_one_who_waits_is_told_whatever_the_policy(span: Span) -> None:
    async with TelemetryPublisher(NOBODY, on_full="drop", message_timeout_s=0.5) as publisher:
        with pytest.raises(LogUnavailable):
            await publisher.apublish(span(1))
        with pytest.raises(LogUnavailable, match="retry is safe"):
            publisher.publish_and_wait(span(1), timeout_s=0.1)


def test_flush_says_how_many_are_left(span: Span) -> None:
    publisher = TelemetryPublisher(NOBODY)
    for number in range(3):
        publisher.publish(span(number))
    assert publisher.flush(0.1) == 3
    assert publisher.close(0.1) == 3
    assert publisher.close(0.1) == 0
    with pytest.raises(InvalidInput, match="closed"):
        publisher.publish(span(4))


def test_a_topic_that_is_not_there_is_named(kafka_bootstrap: str, span: Span) -> None:
    settings = Settings(kafka_bootstrap=kafka_bootstrap, topic_prefix="nobody-made-this.")
    with (
        TelemetryPublisher(settings, message_timeout_s=2) as publisher,
        pytest.raises((Misconfigured, LogUnavailable), match=r"nobody-made-this\.spanfold\.traces"),
    ):
        publisher.publish_and_wait(span(1))


PROGRAM = """
import os, sys
from spanfold.producers.publisher import TelemetryPublisher
from spanfold.language.events import TraceCompleted
from spanfold.language.settings import Settings

publisher = TelemetryPublisher(Settings(), linger_ms=2000)

def publish(name):
    publisher.publish(TraceCompleted(aggregate_id=name, occurred_at=1, source="test", end_time=1))
"""


def _run(program: str, settings: Settings) -> None:
    environment = os.environ | {
        "SPANFOLD_KAFKA_BOOTSTRAP": str(settings.kafka_bootstrap),
        "SPANFOLD_TOPIC_PREFIX": settings.topic_prefix,
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    subprocess.run([sys.executable, "-c", PROGRAM + program], env=environment, timeout=30, check=True)


def test_what_nobody_flushed_is_flushed_at_exit(settings: Settings, read_all: ReadAll) -> None:
    _run("publish('left to the exit')", settings)
    assert [each.key() for each in read_all(1)] == [b"left to the exit"]


def test_after_a_fork_both_processes_publish_and_end(settings: Settings, read_all: ReadAll) -> None:
    program = """
publish('before')
pid = os.fork()
publish('child' if pid == 0 else 'parent')
assert publisher.counts().published == (1 if pid == 0 else 2)
if pid:
    assert os.waitpid(pid, 0)[1] == 0
sys.exit(0)
"""
    _run(program, settings)
    assert sorted(each.key() for each in read_all(3)) == [b"before", b"child", b"parent"]


FILLING = 120


def _fill(publisher: TelemetryPublisher, span: Span) -> None:
    for number in range(FILLING):
        publisher.publish(span(number, tags={"body": "x" * 900_000}))
