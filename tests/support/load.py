"""Events as services publish them, from a seed: in any order, some several times, some too late, some unreadable."""

import random
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from spanfold.language.events import (
    DomainEvent,
    LogRecorded,
    MetricUpdated,
    RecordDiscarded,
    RecordRetried,
    SpanRecorded,
    TraceCompleted,
    TraceCreated,
    TraceErased,
    TraceFailed,
    series_id,
)
from spanfold.language.partitioning import partitions_of
from spanfold.language.records import headers_of, key_of
from spanfold.language.settings import Settings
from spanfold.language.topics import LOGS, TRACES
from spanfold.producers.delivery import Delivery, Outcome
from spanfold.producers.publisher import TelemetryPublisher
from spanfold.schemas.codec import Codec
from tests.support.service_load import ServiceLoad

SERVICES: Final = ("shop", "basket", "bank", "post", "mail", "n" * 210 + "1", "n" * 210 + "2")
KINDS: Final = ("internal", "server", "client", "producer", "consumer")
SECOND: Final = 1_000_000
DAY: Final = 86_400 * SECOND
WINDOW: Final = 300
"""How many events wait to be published: the next one is any of them."""


def events(rng: random.Random, now_us: int, again: float = 1 / 30) -> Iterator[DomainEvent]:
    """For ever: traces with their spans, logs and metrics, mixed up; this share of them comes again, soon or late."""
    waiting: list[DomainEvent] = []
    published: list[DomainEvent] = []
    seen: set[bytes] = set()
    while True:
        while len(waiting) < WINDOW:
            waiting += _trace(rng, now_us)
            waiting += _metrics(rng, now_us)
        at = rng.randrange(len(waiting))
        waiting[at], waiting[-1] = waiting[-1], waiting[at]
        event = waiting.pop()
        if not again:
            if event.event_id in seen:
                continue
            seen.add(event.event_id)
        yield event
        published.append(event)
        if rng.random() < again:
            yield rng.choice(published[-rng.choice((1, 50, 5000)) :])


def _trace(rng: random.Random, now_us: int) -> list[DomainEvent]:
    start = now_us - rng.randrange(600 * SECOND) - rng.choice((0, 0, 0, 0, 0, 0, 0, 1, 12, 29)) * DAY
    common: dict[str, Any] = {"aggregate_id": f"{rng.getrandbits(128):032x}", "source": "load"}
    spans = _spans(rng, common, start)
    logs = [
        LogRecorded(occurred_at=span.end_time, service_name=span.service_name, span_id=span.span_id,
                    body=rng.choice(BODIES), severity_number=rng.choice((9, 17, 17, 21)),
                    trace_id=span.aggregate_id, tags={"exception.type": "ValueError", "try": rng.randrange(3)},
                    **_source(rng), **common)
        for span in spans if span.status == "error"
    ]  # fmt: skip
    roots = [root for number in range(rng.choice((1, 1, 1, 2))) for root in _root(rng, common, start, number)]
    return [*roots, *spans, *_rerecorded(rng, spans), *logs]


BODIES: Final[Sequence[Any]] = ("broke", {"what": ["broke", 1]})


def _source(rng: random.Random) -> dict[str, Any]:
    """Resource and scope of an event; some have none."""
    version = rng.randrange(4)
    if not version:
        return {}
    return {
        "resource": {"service.version": f"1.{version}", "host": {"cpu": [version, 0.5]}},
        "scope_name": rng.choice(("http", "")),
        "scope_version": "2",
    }


def _root(rng: random.Random, common: dict[str, Any], start: int, number: int) -> list[DomainEvent]:
    """The facts of one root of a trace, most of which name the root's span."""
    begin, end = start + number, start + rng.randrange(5 * SECOND)
    names_span = rng.random() < 0.7
    span_id = f"{number:016x}" if names_span else None
    closing: dict[str, Any] = {"span_id": span_id, "start_time": begin if names_span else None, **common}
    created = TraceCreated(
        occurred_at=begin, start_time=begin, span_id=span_id, service_name=rng.choice(SERVICES), operation_name="root",
        tags={"user": rng.randrange(9), "n": 0.5}, **common,
    )  # fmt: skip
    closed: list[DomainEvent] = [
        TraceFailed(occurred_at=end, end_time=end, error="no", tags={"n": "two"}, **closing)
        if rng.random() < 0.2
        else TraceCompleted(occurred_at=end, end_time=end, tags={"ok": True}, **closing)
        for _ in range(rng.choice((0, 1, 1, 1, 1, 2)))
    ]
    return [*([created] if rng.random() < 0.9 else []), *closed]


def _rerecorded(rng: random.Random, spans: Sequence[SpanRecorded]) -> list[SpanRecorded]:
    """Some of the spans again, with an earlier or a later end, and some with another parent or status. Never with the same end:
    that would be another event with the same id.
    """
    again = []
    for span in spans:
        end = max(span.start_time, span.end_time + rng.choice((-SECOND, 1, SECOND, 90 * SECOND)))
        if rng.random() < 0.1 and end != span.end_time:
            parent = rng.choice((span.parent_span_id, spans[0].span_id, None))
            status = rng.choice((span.status, "error"))
            again.append(
                replace(span, end_time=end, occurred_at=end, parent_span_id=parent, status=status, event_id=b"")
            )
    return again


def _spans(rng: random.Random, said: dict[str, Any], start: int) -> list[SpanRecorded]:
    spans: list[SpanRecorded] = []
    for number in range(rng.choice((0, 2, 4, 6, 9))):
        parent = rng.choice(spans) if spans and rng.random() < 0.9 else None
        # Zipkin's client and server share one span id
        shared = parent is not None and rng.random() < 0.15
        begin = start + rng.randrange(SECOND)
        end = begin + rng.choice((0, 31, 32, rng.randrange(SECOND), rng.randrange(20 * SECOND)))
        span_id = parent.span_id if shared and parent else f"{number:016x}"
        parent_id = None if parent is None or shared else parent.span_id
        kind = "server" if shared else rng.choice(KINDS)
        spans.append(
            SpanRecorded(
                occurred_at=end, span_id=span_id, parent_span_id=parent_id, kind=kind,
                service_name=rng.choice(SERVICES), operation_name=rng.choice(("pay", "ship", "ask")),
                start_time=begin, end_time=end, status=rng.choice(("unset", "ok", "ok", "error")),
                tags={"http": [200, 404], "deep": {"er": [None, {"x": 1}]}, "rate": rng.random(), "who": "ü",
                      "http.route": rng.choice(("/a", "/b", 1))},
                events=({"name": "retry", "time": begin, "attributes": {"n": number}},) if number % 3 == 0 else (),
                **_source(rng), **said,
            )
        )  # fmt: skip
    return spans


def _metrics(rng: random.Random, now_us: int) -> list[DomainEvent]:
    service, at = rng.choice(SERVICES[:5]), now_us - rng.randrange(300) * SECOND
    said: dict[str, Any] = {"source": "load", "service_name": service, "occurred_at": at, "start_time": at - DAY}
    labels = {"zone": rng.choice("abc")}

    def series(name: str) -> dict[str, Any]:
        return {"aggregate_id": series_id({"service.name": service}, "", name, labels), "name": name, "labels": labels}

    counts = tuple(rng.randrange(5) for _ in range(4))
    counting = {**said, "start_time": at // (100 * SECOND) * 100 * SECOND - rng.choice((0, 0, 0, 2)) * DAY}
    return [
        MetricUpdated(kind="gauge", value=rng.random() * 100, unit="%", **series("cpu"), **said),
        MetricUpdated(kind="sum", temporality="delta", monotonic=True, value=rng.randrange(50), **series("calls"), **said),
        MetricUpdated(
            kind="histogram", temporality="delta", count=sum(counts), sum=rng.random() * 10, min=0.25, max=9.5,
            bounds=(1.0, 5.0, 10.0), bucket_counts=counts, unit="ms", **series("latency"), **said,
        ),
        MetricUpdated(
            kind="sum", temporality="cumulative", monotonic=rng.random() < 0.8, value=rng.randrange(500),
            **series("total"), **counting,
        ),
        MetricUpdated(
            kind="histogram", temporality="cumulative", count=sum(counts), sum=rng.random() * 10,
            bounds=(1.0, 5.0, 10.0), bucket_counts=counts, unit="ms", **series("sizes"), **counting,
        ),
    ]  # fmt: skip


@dataclass
class Acknowledged:
    """What the brokers said they have: event ids by topic on the broker, partition and offset. `failed` were refused."""

    ids: dict[tuple[str, int, int], bytes] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)

    def of(self, event: DomainEvent) -> Any:
        """The callback for one event of TelemetryPublisher."""

        def told(outcome: Outcome) -> None:
            if isinstance(outcome, Delivery):
                self.ids[outcome.topic, outcome.partition, outcome.offset] = event.event_id
            else:
                self.failed.append(str(outcome))

        return told


class Load:
    """Publishes in threads until it is told that the faults are over and `least` events have been published. A `clean` load
    has no doubled, unreadable or transactional records. `services` appends to a conditional topic too, `erasures` erases
    traces that still go on.
    """

    def __init__(
        self,
        settings: Settings,
        seed: int,
        least: int,
        per_second: float,
        *,
        clean: bool = False,
        services: bool = False,
        erasures: bool = False,
    ) -> None:
        self.acknowledged = Acknowledged()
        self.published = 0
        self._settings, self._seed, self._least, self._per_second = settings, seed, least, per_second
        self._again = 0 if clean else 1 / 30
        self._begun: deque[str] = deque(maxlen=300 if erasures else 0)
        self._enough, self._over = threading.Event(), threading.Event()
        self._errors: list[BaseException] = []
        runs = [self._publish, *(() if clean else (self._publish_bad, self._transact))]
        if services:
            runs.append(partial(ServiceLoad(settings, seed + 3).run, self._over))
        self._threads = [threading.Thread(target=self._guarded, args=(run,), daemon=True) for run in runs]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def finish(self) -> None:
        """Let it come to its end; what went wrong in it is raised here."""
        self._enough.set()
        for thread in self._threads:
            thread.join(180)
            assert not thread.is_alive(), "the load does not end"
        if self._errors:
            raise self._errors[0]

    def abandon(self) -> None:
        """Let it end soon, whatever it has not published."""
        self._least = 0
        self._enough.set()
        self._over.set()

    def _guarded(self, run: Any) -> None:
        try:
            run()
        except BaseException as error:
            self._errors.append(error)
            self._over.set()

    def _publish(self) -> None:
        source = events(random.Random(self._seed), time.time_ns() // 1000, self._again)
        begun = time.monotonic()
        with TelemetryPublisher(self._settings, block_timeout_s=90) as publisher:
            while self.published < self._least or not self._enough.is_set():
                for _ in range(100):
                    event = next(source)
                    if isinstance(event, TraceCreated):
                        self._begun.append(event.aggregate_id)
                    publisher.publish(event, on_delivery=self.acknowledged.of(event))
                self.published += 100
                if self.published >= self._least:
                    time.sleep(5 * 100 / self._per_second)  # enough: only so that the faults still meet some
                elif (ahead := self.published / self._per_second - (time.monotonic() - begun)) > 0:
                    time.sleep(ahead)
            assert publisher.flush(90) == 0
        self._over.set()

    def _publish_bad(self) -> None:
        """Records that no publisher of ours would write, facts about those that will be parked, and erasures of traces that
        still go on.
        """
        rng, codec, parked = random.Random(self._seed + 1), Codec(), list[tuple[str, int]]()
        producer = Producer(
            {"bootstrap.servers": self._settings.kafka_bootstrap, "enable.idempotence": True, "log_level": 0}
        )
        topics = [topic.on_broker(self._settings.topic_prefix) for topic in (TRACES, LOGS)]

        def lies(error: KafkaError | None, message: Message) -> None:
            if error is None and is_text(message.key()) and message.topic() == topics[0]:
                parked.append((message.key().decode(), message.offset() or 0))  # type: ignore[union-attr]

        while not self._over.wait(0.03):
            topic = topics[0]
            if self._begun and rng.random() < 0.1:
                topic, record = rng.choice(topics), _erasure(rng, codec, self._begun)
            else:
                record = _settlement(rng, codec, parked) if parked and rng.random() < 0.2 else _spoilt(rng, codec)
            value, key, headers, stray = record
            home = int(partitions_of([key], self._settings.partitions)[0]) if key else 0
            producer.produce(
                topic, value, key, (home + stray) % self._settings.partitions, headers=headers, on_delivery=lies
            )
            producer.poll(0)
        assert producer.flush(90) == 0

    def _transact(self) -> None:
        """Transactions of which half are aborted. One whose end is not known is left to its successor."""
        rng = random.Random(self._seed + 2)
        source = events(rng, time.time_ns() // 1000)
        while not self._over.is_set():
            with suppress(KafkaException):
                self._transactions(rng, source)
        # whatever is open is aborted, so that the log's stable end is its end
        self._transactor().init_transactions(60)

    def _transactor(self) -> Producer:
        return Producer(
            {
                "bootstrap.servers": self._settings.kafka_bootstrap,
                "transactional.id": f"{self._settings.group}-load",
                "transaction.timeout.ms": 20_000,
                "partitioner": "murmur2_random",
                "log_level": 0,
            }
        )

    def _transactions(self, rng: random.Random, source: Iterator[DomainEvent]) -> None:
        producer, codec = self._transactor(), Codec()
        producer.init_transactions(30)
        while not self._over.wait(0.1):
            producer.begin_transaction()
            written: dict[tuple[str, int, int], bytes] = {}
            for event in (next(source) for _ in range(rng.randrange(40))):
                name = event.topic.on_broker(self._settings.topic_prefix)
                value = codec.encode(event.event_type, event.as_fields())
                producer.produce(
                    name, value, key_of(event), headers=list(headers_of(event)), on_delivery=_noting(written, event)
                )
            if producer.flush(30):
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
            if rng.random() < 0.5:
                producer.abort_transaction(30)
            else:
                producer.commit_transaction(30)
                self.acknowledged.ids.update(written)


def _noting(written: dict[tuple[str, int, int], bytes], event: DomainEvent) -> Any:
    def told(error: KafkaError | None, message: Message) -> None:
        if error is None:
            written[message.topic() or "", message.partition() or 0, message.offset() or 0] = event.event_id

    return told


Record = tuple[bytes | None, bytes | None, Any, int]
"""Value, key, headers, and by how many partitions it is misrouted."""


def is_text(key: str | bytes | None) -> bool:
    return isinstance(key, bytes) and key.isascii()


def _settlement(rng: random.Random, codec: Codec, parked: list[tuple[str, int]]) -> Record:
    """A fact about a record of ours, which may be parked, rejected, or settled already."""
    key, offset = rng.choice(parked[-20:])
    fact = rng.choice((RecordRetried, RecordDiscarded))(
        aggregate_id=key,
        source="bad",
        occurred_at=time.time_ns() // 1000,
        record_topic=TRACES.name,
        record_offset=offset,
    )
    return codec.encode(fact.event_type, fact.as_fields()), key_of(fact), headers_of(fact), 0


def _erasure(rng: random.Random, codec: Codec, begun: Sequence[str]) -> Record:
    """A trace that has begun is erased; some are erased twice."""
    fact = TraceErased(aggregate_id=rng.choice(begun), occurred_at=time.time_ns() // 1000, source="bad")
    return codec.encode(fact.event_type, fact.as_fields()), key_of(fact), headers_of(fact), 0


def _spoilt(rng: random.Random, codec: Codec) -> Record:
    """A record with something wrong."""
    now = time.time_ns() // 1000
    said: dict[str, Any] = {"aggregate_id": f"{rng.getrandbits(128):032x}", "source": "bad", "occurred_at": now}
    event = TraceCompleted(end_time=1, **said)
    value, key, headers = codec.encode(event.event_type, event.as_fields()), key_of(event), headers_of(event)
    backwards = SpanRecorded(
        span_id="1", parent_span_id=None, service_name="s", operation_name="o", start_time=now, end_time=now - 1, **said
    )
    tagged = replace(backwards, end_time=now, tags={"k": "v"})
    early, later = headers[:2], headers[2:]
    ways: list[Record] = [
        (b"not framed", key, headers, 0),
        (None, key, headers, 0),
        (value[:-1], key, headers, 0),
        (b"\0\0\0\0\1" + value[5:], key, headers, 0),
        (codec.encode(backwards.event_type, backwards.as_fields()), key, headers_of(backwards), 0),
        (
            codec.encode(tagged.event_type, tagged.as_fields()).replace(b'{"k":"v"}', b'{"k":"v",'),
            key,
            headers_of(tagged),
            0,
        ),
        (value, key, [*early, ("occurred_at", str(now + 1).encode())], 0),
        (value, key, [*early, ("occurred_at", str(now - 40 * DAY).encode())], 0),
        (value, key, [*early, ("occurred_at", str(now + 2 * DAY).encode())], 0),
        (value, key, [("event_id", b"not an id"), *headers[1:]], 0),
        (value, key, [headers[0], ("event_type", b"TraceFailed"), *later], 0),
        (value, None, headers, 0),
        (value, b"\xff", headers, 0),
        (value, key, None, 0),
        (value, key, headers, 1),
    ]
    return rng.choice(ways)
