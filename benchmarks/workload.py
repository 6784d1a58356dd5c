"""What is published: seeded events of many traces, open at the same time as others, so that batches cut through them."""

import random
import time
from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import Final, NamedTuple

from rich.progress import Progress

from spanfold.kafka.topics import ensure_topics
from spanfold.language.events import SpanRecorded, Tags, TraceCompleted, TraceCreated, TraceEvent
from spanfold.language.settings import Settings
from spanfold.producers.publisher import TelemetryPublisher

LAG: Final = 500
"""A trace is completed when so many others have begun after it."""


class Workload(NamedTuple):
    """Makes the events of so many traces; each has `events_per_trace`. The third argument is when they begin, µs UTC."""

    make: Callable[[random.Random, int, int], Iterator[TraceEvent]]
    events_per_trace: int


def traces(randomness: random.Random, count: int, now: int) -> Iterator[TraceEvent]:
    """TraceCreated and TraceCompleted of each trace."""
    ids = [randomness.randbytes(16).hex() for _ in range(count)]
    for number in range(count + LAG):
        if number < count:
            yield _created(ids[number], now + number, number)
        if number >= LAG:
            end = now + number - LAG + randomness.randrange(1_000_000)
            yield _completed(ids[number - LAG], end)


def spans(randomness: random.Random, count: int, now: int) -> Iterator[TraceEvent]:
    """TraceCreated, a SpanRecorded for each of CALLS, children before parents, and TraceCompleted."""
    started = [(randomness.randbytes(16).hex(), now + number) for number in range(count)]
    ended = [LAG * (turn + 1) // (len(CALLS) + 1) for turn in range(len(CALLS))]
    for number in range(count + LAG):
        if number < count:
            yield _created(*started[number], number)
        for call, behind in zip(CALLS, ended, strict=True):
            if 0 <= (opened := number - behind) < count:
                yield _span(call, *started[opened], opened, randomness.randrange(10_000))
        if number >= LAG:
            trace_id, start = started[number - LAG]
            yield _completed(trace_id, start + randomness.randrange(1_000_000))


def opened(randomness: random.Random, count: int, now: int) -> Iterator[TraceEvent]:
    """TraceCreated of each trace, and nothing more."""
    for number in range(count):
        yield _created(randomness.randbytes(16).hex(), now + number, number)


class Call(NamedTuple):
    """A span of each trace: `number` and `parent` make the ids, the times are µs after the trace's start."""

    number: int
    parent: int | None
    service: str
    kind: str
    operation: str
    start: int
    duration: int
    tags: Tags


def _server(path: str) -> Tags:
    return {
        "http.request.method": "POST", "http.route": path, "url.path": path, "url.scheme": "http",
        "http.response.status_code": 200, "server.address": "10.2.0.17", "server.port": 8080,
        "network.protocol.version": "1.1", "user_agent.original": "python-httpx/0.28.1",
    }  # fmt: skip


def _client(address: str, path: str) -> Tags:
    return {
        "http.request.method": "POST", "url.full": f"http://{address}:8080{path}", "server.address": address,
        "server.port": 8080, "http.response.status_code": 201,
    }  # fmt: skip


def _query(text: str) -> Tags:
    return {"db.system.name": "postgresql", "db.namespace": "shop", "db.query.text": text, "db.response.rows": 1}


CALLS: Final = (
    Call(
        4, 3, "inventory", "client", "UPDATE stock", 9_000, 3_000, _query("UPDATE stock SET n = n - $1 WHERE sku = $2")
    ),
    Call(3, 2, "inventory", "server", "POST /reservations", 7_000, 7_000, _server("/reservations")),
    Call(2, 1, "storefront", "client", "POST", 5_000, 14_000, _client("inventory", "/reservations")),
    Call(7, 6, "payments", "internal", "authorize card", 25_000, 10_000, {"card.brand": "visa", "amount.cents": 4_711}),
    Call(8, 6, "payments", "client", "INSERT charge", 36_000, 20_000, _query("INSERT INTO charge VALUES ($1, $2, $3)")),
    Call(6, 5, "payments", "server", "POST /charges", 23_000, 35_000, _server("/charges")),
    Call(5, 1, "storefront", "client", "POST", 20_000, 40_000, _client("payments", "/charges")),
    Call(1, None, "storefront", "server", "POST /checkout", 0, 70_000, _server("/checkout")),
)
"""A checkout in three services: pairs of client and server, queries, and one span that stays in its service."""


class Name(StrEnum):
    """Of a workload."""

    TRACES = "traces"
    SPANS = "spans"
    OPENED = "opened"


WORKLOADS: Final = {
    Name.TRACES: Workload(traces, 2),
    Name.SPANS: Workload(spans, 2 + len(CALLS)),
    Name.OPENED: Workload(opened, 1),
}


def publish(settings: Settings, workload: Workload, count: int, progress: Progress) -> None:
    """The events of `count` traces, always the same but for when they begin; returns when Kafka has all of them."""
    ensure_topics(settings)
    task = progress.add_task("publishing", total=count * workload.events_per_trace)
    events = workload.make(random.Random(1), count, time.time_ns() // 1000)
    with TelemetryPublisher(settings, block_timeout_s=60.0) as publisher:
        for number, event in enumerate(events, 1):
            publisher.publish(event)
            if number % 1000 == 0:
                progress.update(task, completed=number)
        progress.update(task, completed=number)
        if publisher.flush(120.0):
            raise SystemExit("Kafka did not take all events within 120 s")


def _created(trace_id: str, at: int, number: int) -> TraceCreated:
    return TraceCreated(
        aggregate_id=trace_id,
        occurred_at=at,
        source="bench",
        service_name=f"service-{number % 12}",
        operation_name=f"GET /things/{number % 40}",
        start_time=at,
        tags={"http.request.method": "GET", "http.response.status_code": 200},
    )


def _span(call: Call, trace_id: str, at: int, number: int, jitter: int) -> SpanRecorded:
    failed = call.service == "payments" and number % 20 == 0
    end = at + call.start + call.duration + jitter
    return SpanRecorded(
        aggregate_id=trace_id,
        occurred_at=end,
        source="bench",
        span_id=_span_id(trace_id, call.number),
        parent_span_id=None if call.parent is None else _span_id(trace_id, call.parent),
        service_name=call.service,
        operation_name=f"{call.operation} {number % 4}" if call.kind == "server" else call.operation,
        start_time=at + call.start,
        end_time=end,
        kind=call.kind,
        status="error" if failed else "unset",
        tags=call.tags,
    )


def _span_id(trace_id: str, number: int) -> str:
    return f"{trace_id[:15]}{number:x}"


def _completed(trace_id: str, end: int) -> TraceCompleted:
    return TraceCompleted(aggregate_id=trace_id, occurred_at=end, source="bench", end_time=end)
