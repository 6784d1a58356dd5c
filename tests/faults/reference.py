"""What the tables must be, computed from the log in the dumbest way, and what they are, as a reader of the views sees them.

The log is read by a plain consumer of committed records from its first offset. Nothing here comes from projections/: the rules
are told a second time, in words as plain as they go. A table is a mapping of key to row; spans, which have no key, are a
mapping of row to how often it is there.
"""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final, NamedTuple

import psycopg
from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, Consumer, KafkaError, TopicPartition

from spanfold.kafka.log_ends import ends_of_log
from spanfold.language.errors import PoisonRecord
from spanfold.language.settings import Settings
from spanfold.language.topics import Topic, TopicKind, installed_topics
from spanfold.schemas.codec import Codec

MINUTE: Final = 60_000_000
DAY: Final = 86_400_000_000
NAME: Final = 200
"""Names are cut to so many characters in rollups."""

PROJECTED: Final = ("spanfold.traces", "spanfold.metrics", "spanfold.logs", "spanfold.services")
"""The topics that projections fold, one each."""

FOLDED: Final = {"TraceCreated", "SpanRecorded", "TraceCompleted", "TraceFailed", "MetricUpdated", "LogRecorded"}
"""The event types of telemetry topics that this reference knows."""

Table = Mapping[Any, Any]


class Logged(NamedTuple):
    """A record as it lies in the log; log time in ms."""

    topic: Topic
    partition: int
    offset: int
    log_time: int
    key: bytes | None
    headers: list[tuple[str, bytes | None]]
    value: bytes | None


class Log(NamedTuple):
    """All committed records in the order of their offsets, and the next offset of each partition."""

    records: list[Logged]
    ends: dict[tuple[str, int], int]


def read_log(settings: Settings) -> Log:
    """Read every partition of every topic from its first offset to its end."""
    named = {topic.on_broker(settings.topic_prefix): topic for topic in installed_topics()}
    consumer = Consumer(
        {
            "bootstrap.servers": settings.kafka_bootstrap, "group.id": "reference", "enable.auto.commit": False,
            "auto.offset.reset": "earliest", "enable.partition.eof": True, "isolation.level": "read_committed",
        }
    )  # fmt: skip
    places = [TopicPartition(name, partition, 0) for name in named for partition in range(settings.partitions)]
    consumer.assign(places)
    records, ended = list[Logged](), set[tuple[str, int]]()
    while len(ended) < len(places):
        for message in consumer.consume(5000, 1.0):
            where = (message.topic() or "", message.partition() or 0)
            if error := message.error():
                assert error.code() == KafkaError._PARTITION_EOF, error
                ended.add(where)
                continue
            kind, log_time = message.timestamp()
            assert kind == TIMESTAMP_LOG_APPEND_TIME
            headers: Any = message.headers() or []
            records.append(
                Logged(
                    named[where[0]], where[1], message.offset() or 0, log_time, message.key(), headers, message.value()
                )
            )
    consumer.close()
    records.sort(key=lambda each: (each.topic.name, each.partition, each.offset))
    return Log(records, ends_of_log(settings))


# Verdicts

ERASABLE = ("spanfold.traces", "spanfold.logs")


def murmur2(data: bytes) -> int:
    """As Java's clients hash keys."""
    mask, m = 0xFFFFFFFF, 0x5BD1E995
    h = 0x9747B28C ^ len(data)
    whole = len(data) // 4 * 4
    for at in range(0, whole, 4):
        k = int.from_bytes(data[at : at + 4], "little") * m & mask
        k = (k ^ k >> 24) * m & mask
        h = h * m & mask ^ k
    if rest := data[whole:]:
        h = (h ^ int.from_bytes(rest, "little")) * m & mask
    h = (h ^ h >> 13) * m & mask
    return h ^ h >> 15


def is_text(raw: bytes | None, most: int) -> bool:
    if not raw or len(raw) > most or b"\0" in raw:
        return False
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def misshapen(record: Logged, partitions: int) -> str | None:
    """`malformed` or `misrouted`, by the rules of docs/adr/0003; None if it is neither."""
    found = dict(record.headers)
    event_id, occurred_at = found.get("event_id") or b"", found.get("occurred_at") or b""
    hexadecimal = re.fullmatch(rb"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", event_id)
    decimal = re.fullmatch(rb"-?[0-9]{1,18}", occurred_at)
    if not (is_text(record.key, 512) and hexadecimal and decimal and is_text(found.get("event_type"), 255)):
        return "malformed"
    if (murmur2(record.key or b"") & 0x7FFFFFFF) % partitions != record.partition:
        return "misrouted"
    return None


class Before:
    """What the accepted records before say: which events there were, and which keys were erased by the record at an offset."""

    def __init__(self) -> None:
        self.events: dict[tuple[Any, ...], Any] = {}
        self.erased: dict[Any, int] = {}

    def erase(self, record: Logged) -> None:
        """All that there was of the record's key goes, its own event too."""
        key = key_of(record)
        self.erased[key] = record.offset
        self.events = {event: of for event, of in self.events.items() if of != key}


def key_of(record: Logged) -> tuple[str, int, bytes | None]:
    return (record.topic.name, record.partition, record.key)


def verdict_of(record: Logged, partitions: int, before: Before) -> str:
    """Of a record of telemetry, by the rules of docs/adr/0003 and 0014."""
    if verdict := misshapen(record, partitions):
        return verdict
    if key_of(record) in before.erased:
        return "erased"
    found = dict(record.headers)
    event_id, occurred_at = found["event_id"] or b"", found["occurred_at"] or b""
    age = record.log_time * 1000 - int(occurred_at)
    if age > record.topic.window_days * DAY:
        return "expired"
    if -age > record.topic.future_days * DAY:
        return "future"
    if record.topic.journaled:
        event = (record.topic.name, record.partition, int(occurred_at) // DAY, event_id.lower())
        if event in before.events:
            return "duplicate"
        before.events[event] = key_of(record)
    if found["event_type"] == b"TraceErased" and record.topic.name in ERASABLE:
        before.erase(record)
    return "accepted"


# Rows


class Event(NamedTuple):
    """An event that is to be folded, and the record that it came in."""

    record: Logged
    type: str
    fields: dict[str, Any]


class Parked(NamedTuple):
    """A record that could not be folded, and what later facts said of it, by their offsets."""

    reason: str
    state: str = "parked"
    settled_offset: int | None = None
    last_tried_offset: int | None = None


def expected(log: Log, partitions: int) -> dict[str, Table]:
    """Every table of telemetry, from every record."""
    codec, before = Codec(), Before()
    verdicts, parked, journal = dict[Any, int](), dict[Any, Parked](), dict[Any, Any]()
    events: list[Event] = []
    keys = dict[Any, Any]()
    for record in (each for each in log.records if each.topic.kind is TopicKind.TELEMETRY):
        position = (record.topic.name, record.partition, record.offset)
        keys[position] = key_of(record)
        verdict = verdict_of(record, partitions, before)
        # metrics are not journaled: only what was rejected is told of
        if verdict != "accepted" or record.topic.journaled:
            verdicts[(*position, verdict)] = 1
        if verdict != "accepted":
            continue
        headers = dict(record.headers)
        if record.topic.journaled:
            said = (headers["event_id"], headers["event_type"], record.key)
            journal[position] = (*(text.decode() for text in said if text), record.value, record.offset + 1)
        event = _read(record, headers, codec)
        if isinstance(event, str):
            parked[position] = Parked(event)
        elif event.type in ("RecordRetried", "RecordDiscarded"):
            _settle(parked, event)
        elif event.type != "TraceErased":
            events.append(event)
    events = [event for event in events if key_of(event.record) not in before.erased]
    assert {event.type for event in events} <= FOLDED, "this reference must learn a new event type"
    for position in (each for each, key in keys.items() if key in before.erased):
        _forget(position, before.erased[keys[position]], verdicts, journal, parked)
    checkpoints = {(topic, partition, "journal"): end for (topic, partition), end in log.ends.items()}
    tables = {"verdicts": verdicts, "journal": journal, "parked_records": parked, "checkpoints": checkpoints}
    traced = [event for event in events if event.record.topic.name == "spanfold.traces"]
    logged = [event for event in events if event.record.topic.name == "spanfold.logs"]
    measured = [event for event in events if event.record.topic.name == "spanfold.metrics"]
    at_end = {(topic, partition): end for (topic, partition), end in log.ends.items() if topic in PROJECTED}
    logs: dict[str, Table] = {"logs": Counter(map(_log_row, logged)), "projections' checkpoints": at_end}
    return tables | _trace_tables(traced) | logs | _metric_tables(measured)


def _forget(
    position: Any, at: int, verdicts: dict[Any, int], journal: dict[Any, Any], parked: dict[Any, Parked]
) -> None:
    """What the tables lose of an accepted record whose key was erased at `at`."""
    journal.pop(position, None)
    verdicts.pop((*position, "accepted"), None)
    if position in parked:
        parked[position] = parked[position]._replace(state="erased", settled_offset=at)


def folded_events(log: Log, partitions: int) -> list[Event]:
    """The events of all records that are accepted, can be read and were not erased, in the log's order."""
    codec, before, events = Codec(), Before(), list[Event]()
    for record in log.records:
        if verdict_of(record, partitions, before) == "accepted":
            event = _read(record, dict(record.headers), codec)
            if isinstance(event, Event) and event.type not in ("RecordRetried", "RecordDiscarded", "TraceErased"):
                events.append(event)
    return [event for event in events if key_of(event.record) not in before.erased]


def _read(record: Logged, headers: Mapping[str, Any], codec: Codec) -> Event | str:
    """The event, or why it is parked."""
    try:
        event_type, text = codec.decode(record.value)
        fields = codec.with_values(event_type, text)
    except PoisonRecord as poison:
        return poison.reason
    says = (event_type, fields["event_id"].hex(), str(fields["occurred_at"]), fields["aggregate_id"])
    headers_say = (
        headers["event_type"].decode(), headers["event_id"].decode().replace("-", ""),
        headers["occurred_at"].decode(), (record.key or b"").decode(),
    )  # fmt: skip
    if says != headers_say:
        return "contradiction"
    if event_type == "SpanRecorded" and fields["end_time"] < fields["start_time"]:
        return "invalid"
    return Event(record, event_type, fields)


def _settle(parked: dict[Any, Parked], fact: Event) -> None:
    """What cannot be read cannot be read a second time."""
    position = (fact.record.topic.name, fact.record.partition, fact.fields["record_offset"])
    about, at = parked.get(position), fact.record.offset
    if about is None or about.settled_offset is not None:
        return
    discarded = {"state": "discarded", "settled_offset": at}
    parked[position] = about._replace(**(discarded if fact.type == "RecordDiscarded" else {"last_tried_offset": at}))


def _trace_tables(events: Sequence[Event]) -> dict[str, Table]:
    traces = defaultdict[str, list[Event]](list)
    for event in events:
        traces[event.fields["aggregate_id"]].append(event)
    spans = _once([event for event in events if event.type == "SpanRecorded"])
    spans_of = defaultdict[str, list[dict[str, Any]]](list)
    for span in spans:
        spans_of[span.fields["aggregate_id"]].append(span.fields)
    return {
        "traces": {trace_id: _trace_row(own, spans_of[trace_id]) for trace_id, own in traces.items()},
        "spans": Counter(map(_span_row, spans)),
        "operation_minutes": _operation_rows([event.fields for event in spans]),
        "service_dependencies": _dependency_rows(spans_of.values()),
    }


def _once(events: Sequence[Event]) -> list[Event]:
    """Each span once: of its records the one that ends last, of those the one with the greatest event id. What ends more than a
    week after its start is a span of its own.
    """
    groups = defaultdict[Any, list[Event]](list)
    for event in events:
        f = event.fields
        is_long = f["end_time"] - f["start_time"] > 7 * DAY
        name = (f["aggregate_id"], f["span_id"], f["kind"], f["service_name"], f["start_time"])
        groups[*name, f["event_id"] if is_long else None].append(event)
    return [
        max(group, key=lambda event: (event.fields["end_time"], event.fields["event_id"])) for group in groups.values()
    ]


def _root(fields: Mapping[str, Any]) -> tuple[Any, ...]:
    """What names no span comes before all else; then the earlier start, then the lesser span id."""
    return (0,) if fields["span_id"] is None else (1, fields["start_time"], fields["span_id"])


def _trace_row(events: Sequence[Event], spans: Sequence[Mapping[str, Any]]) -> tuple[Any, ...]:
    halves = [event for event in events if event.type != "SpanRecorded"]
    root = min((_root(event.fields) for event in halves), default=None)

    def last(*types: str) -> Event | None:
        own = [event for event in halves if event.type in types and _root(event.fields) == root]
        return max(own, key=lambda event: (event.fields["occurred_at"], event.fields["event_id"]), default=None)

    created, closed = last("TraceCreated"), last("TraceCompleted", "TraceFailed")
    first = created.fields if created else {}
    final = closed.fields if closed else {}
    earliest = min(
        spans,
        key=lambda span: (
            span["start_time"], span["span_id"], span["service_name"], span["kind"], span["end_time"], span["event_id"],
        ),
        default=None,
    )  # fmt: skip
    named = first or (earliest if root is None and earliest else {})
    start = first.get("start_time") or final.get("start_time") or (earliest["start_time"] if earliest else None)
    end = final.get("end_time") if root is not None else max((span["end_time"] for span in spans), default=None)
    failed = closed is not None and closed.type == "TraceFailed"
    status = "incomplete" if root is None else "started" if closed is None else final.get("status", "failed")
    return (
        named.get("service_name"),
        named.get("operation_name"),
        status,
        start,
        end,
        None if start is None or end is None else (end - start) / 1000,
        _document({**first.get("tags", {}), **final.get("tags", {})}),
        len(spans),
        len([span for span in spans if span["status"] == "error"]),
        final.get("error") if failed else None,
        root is not None,
        0 if end is None else len([span for span in spans if span["end_time"] > end]),
        max(event.record.offset + 1 for event in events),
        max(event.fields["occurred_at"] for event in events),
    )


def _span_row(event: Event) -> tuple[Any, ...]:
    f = event.fields
    return (
        f["aggregate_id"], f["span_id"], f["parent_span_id"], f["service_name"], f["operation_name"], f["kind"],
        f["status"], f["status_message"], f["start_time"], f["end_time"], (f["end_time"] - f["start_time"]) / 1000,
        _document(f["tags"]), _document(f["events"]), _document(f["links"]), event.record.offset + 1,
        *_source(f),
    )  # fmt: skip


LOG_FIELDS: Final = (
    "service_name", "severity_number", "severity_text", "event_name", "trace_id", "span_id", "occurred_at",
)  # fmt: skip


def _log_row(event: Event) -> tuple[Any, ...]:
    f = event.fields
    columns = (f[name] for name in LOG_FIELDS)
    documents = (_document(f["body"]), _document(f["tags"]))
    return (f["event_id"].hex(), *columns, *documents, event.record.offset + 1, *_source(f))


def _source(f: Mapping[str, Any]) -> tuple[Any, ...]:
    """What views show of a resource and a scope, as in SOURCE."""
    return (_document(f["resource"]), f["scope_name"], f["scope_version"], f["resource"].get("service.version"))


def _metric_tables(events: Sequence[Event]) -> dict[str, Table]:
    """The topic has no journal: of several events for one point the greatest event id wins, of its records the first."""
    points: dict[tuple[str, int], Event] = {}
    for event in events:
        key = (event.fields["aggregate_id"], event.fields["occurred_at"])
        if key not in points or event.fields["event_id"] > points[key].fields["event_id"]:
            points[key] = event
    latest: dict[str, Event] = {}
    minutes = defaultdict[tuple[str, int], list[Mapping[str, Any]]](list)
    chains: dict[tuple[Any, ...], Mapping[str, Any]] = {}
    for (series, time), event in sorted(points.items()):
        latest[series] = event
        f = event.fields
        chain = (series, f["kind"], f["start_time"])
        counted = _growth(f, chains.get(chain)) if f["temporality"] == "cumulative" else f
        chains[chain] = f
        minutes[series, time // MINUTE * MINUTE].append(counted)
    return {
        "metric_points": {key: _point_row(event) for key, event in points.items()},
        "metrics": {series: _series_row(event) for series, event in latest.items()},
        "metric_minutes": {key: _minute_row(group) for key, group in minutes.items()},
    }


def _growth(f: Mapping[str, Any], before: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """What a cumulative point tells of new ones: all of it after a reset, or as the first one within a day of its start."""
    if before is None or f["occurred_at"] - before["occurred_at"] > DAY:
        old, is_whole = f, f["occurred_at"] - f["start_time"] <= DAY
    else:
        old, is_whole = before, _is_reset(f, before)
    if is_whole:
        return {**f, "value": _number(f["value"]), "sum": _number(f["sum"])}
    return {
        **f,
        "value": None if f["value"] is None else Decimal(repr(f["value"])) - Decimal(repr(old["value"])),
        "sum": None if f["sum"] is None else Decimal(repr(f["sum"])) - Decimal(repr(old["sum"])),
        "count": None if f["count"] is None else f["count"] - old["count"],
        "bucket_counts": [new - less for new, less in zip(f["bucket_counts"], old["bucket_counts"], strict=True)],
    }


def _is_reset(f: Mapping[str, Any], before: Mapping[str, Any]) -> bool:
    if f["kind"] == "sum":
        return bool(f["monotonic"] and f["value"] < before["value"])
    lower = [new < old for new, old in zip(f["bucket_counts"], before["bucket_counts"], strict=True)]
    return f["count"] < before["count"] or any(lower)


def _number(value: float | Decimal | None) -> Decimal | None:
    return Decimal(repr(value)) if isinstance(value, float) else None if value is None else Decimal(value)


def _point_row(event: Event) -> tuple[Any, ...]:
    f = event.fields
    histogram = f["kind"] == "histogram"
    return (
        f["event_id"].hex(), f["kind"], f["temporality"], f["start_time"], _number(f["value"]), f["count"],
        *(_number(f[name]) for name in ("sum", "min", "max")),
        *(_document(f[name]) if histogram else None for name in ("bounds", "bucket_counts")),
        event.record.offset + 1, *_source(f),
    )  # fmt: skip


def _series_row(event: Event) -> tuple[Any, ...]:
    f = event.fields
    return (
        f["name"], f["unit"], f["kind"], f["service_name"], _document(f["labels"]), f["occurred_at"],
        _number(f["value"]), f["count"], _number(f["sum"]), event.record.offset + 1, *_source(f),
    )  # fmt: skip


def _minute_row(points: Sequence[Mapping[str, Any]]) -> tuple[Any, ...]:
    """Of one series: a gauge's values, the increments of a sum, or what a histogram counted."""
    kind, buckets = points[0]["kind"], Counter[str]()
    if kind == "gauge":
        values = [_number(f["value"]) or Decimal() for f in points]
        return (len(points), len(points), None, values[-1], min(values), max(values), None)
    if kind == "sum":
        return (
            len(points),
            len(points),
            sum((_number(f["value"]) or Decimal() for f in points), Decimal()),
            *(None,) * 4,
        )
    for f in points:
        buckets.update(dict(zip(("1", "5", "10", "Infinity"), f["bucket_counts"], strict=True)))
    return (
        len(points),
        sum(f["count"] for f in points),
        sum((_number(f["sum"]) or Decimal() for f in points), Decimal()),
        None,
        min((number for f in points if (number := _number(f["min"])) is not None), default=None),
        max((number for f in points if (number := _number(f["max"])) is not None), default=None),
        _document(dict(+buckets)) if +buckets else None,
    )


def _operation_rows(spans: Sequence[Mapping[str, Any]]) -> Table:
    groups = defaultdict[Any, list[Mapping[str, Any]]](list)
    for span in spans:
        minute, route = span["occurred_at"] // MINUTE * MINUTE, span["tags"].get("http.route")
        route = route[:NAME] if isinstance(route, str) else ""
        groups[span["service_name"][:NAME], span["operation_name"][:NAME], span["kind"], route, minute].append(span)
    return {key: _rollup(group) for key, group in groups.items()}


def _rollup(spans: Sequence[Mapping[str, Any]]) -> tuple[Any, ...]:
    durations = [span["end_time"] - span["start_time"] for span in spans]
    errors = [span for span in spans if span["status"] == "error"]
    return (len(spans), len(errors), sum(durations) / 1000, dict(Counter(map(_upper_ms, durations))))


def _upper_ms(duration: int) -> Decimal:
    """Exact below 32 µs; from there each power of two is cut into sixteen."""
    width = 1
    while duration >= 32 * width:
        width *= 2
    return Decimal(duration // width * width + width - 1) / 1000


def _dependency_rows(traces: Iterable[Sequence[Mapping[str, Any]]]) -> Table:
    groups = defaultdict[Any, list[Mapping[str, Any]]](list)
    for spans in traces:
        for child in spans:
            for parent in _callers(child, spans):
                minute = child["end_time"] // MINUTE * MINUTE
                groups[parent["service_name"][:NAME], child["service_name"][:NAME], minute].append(child)
    return {key: _rollup(group) for key, group in groups.items()}


def _callers(child: Mapping[str, Any], spans: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Among the spans with the parent's id, at most a week away, the first that sends, the first that takes and the first other
    one; those of them that called the child.
    """
    parent_id = child["span_id"] if child["parent_span_id"] is None else child["parent_span_id"]
    parents = [
        span for span in spans
        if span["span_id"] == parent_id and abs(span["end_time"] - child["end_time"]) <= 7 * DAY
    ]  # fmt: skip
    callers = []
    for kinds in (("client", "producer"), ("server", "consumer"), ("internal",)):
        own = [span for span in parents if span["kind"] in kinds]
        first = min(own, key=lambda span: (span["start_time"], span["service_name"], span["kind"]), default=None)
        if first is not None and _calls(first, child):
            callers.append(first)
    return callers


def _calls(parent: Mapping[str, Any], child: Mapping[str, Any]) -> bool:
    if parent["service_name"] == child["service_name"]:
        return False
    sends, takes = parent["kind"] in ("client", "producer"), child["kind"] in ("server", "consumer")
    if child["parent_span_id"] is None:
        # Zipkin's two halves of one span
        return bool(sends and takes)
    return bool(takes or not sends)


def _document(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


# What is there


def _us(column: str) -> str:
    return f"(extract(epoch FROM {column}) * 1000000)::bigint"


SOURCE: Final = "resource, scope_name, scope_version, service_version"

TELEMETRY: Final = "topic <> 'spanfold.services'"

QUERIES: Final = {
    "verdicts": f"SELECT topic, partition, kafka_offset, verdict FROM spanfold.verdicts WHERE {TELEMETRY}",
    "journal": f"""
        SELECT topic, partition, kafka_offset, event_id::text, event_type, aggregate_id, payload, version
          FROM spanfold.journal WHERE {TELEMETRY}""",
    "parked_records": f"""
        SELECT topic, partition, kafka_offset, reason, state, settled_offset, last_tried_offset FROM spanfold.parked_records
         WHERE {TELEMETRY}""",
    "checkpoints": """
        SELECT topic, partition, projection, next_offset FROM spanfold.checkpoints WHERE projection = 'journal'""",
    "projections' checkpoints": """
        SELECT topic, partition, next_offset FROM spanfold.checkpoints
         WHERE projection NOT IN ('journal', 'fickle') AND live""",
    "traces": f"""
        SELECT trace_id, service_name, operation_name, status, {_us("start_time")}, {_us("end_time")}, duration_ms, tags,
               span_count, error_count, error, has_root, late_events, version, {_us("last_event_at")}
          FROM spanfold.traces""",
    "spans": f"""
        SELECT trace_id, span_id, parent_span_id, service_name, operation_name, kind, status, status_message,
               {_us("start_time")}, {_us("end_time")}, duration_ms, tags, events, links, version, {SOURCE}
          FROM spanfold.spans""",
    "operation_minutes": f"""
        SELECT service_name, operation_name, kind, route, {_us("minute")}, calls, errors, duration_ms_sum,
               spanfold.histogram_bounds(duration_histogram)
          FROM spanfold.operation_minutes""",
    "logs": f"""
        SELECT replace(event_id::text, '-', ''), service_name, severity_number, severity_text, event_name, trace_id, span_id,
               {_us("occurred_at")}, body::text, tags, version, {SOURCE}
          FROM spanfold.logs""",
    "metric_points": f"""
        SELECT series_id, {_us("time")}, replace(event_id::text, '-', ''), kind, temporality, {_us("start_time")},
               value, count, sum, min, max, bounds, bucket_counts, version, {SOURCE}
          FROM spanfold.metric_points""",
    "metrics": f"""
        SELECT series_id, name, unit, kind, service_name, labels, {_us("time")}, value, count, sum, version, {SOURCE}
          FROM spanfold.metrics""",
    "metric_minutes": f"""
        SELECT series_id, {_us("minute")}, points, count, sum, last, min, max, buckets FROM spanfold.metric_minutes""",
    "service_dependencies": f"""
        SELECT parent, child, {_us("minute")}, calls, errors, duration_ms_sum, spanfold.histogram_bounds(duration_histogram)
          FROM spanfold.service_dependencies""",
}

KEYS: Final = {
    "journal": 3, "parked_records": 3, "checkpoints": 3, "projections' checkpoints": 2, "traces": 1,
    "operation_minutes": 5, "service_dependencies": 3, "metric_points": 2, "metrics": 1, "metric_minutes": 2,
}  # fmt: skip
"""How many columns are the key; a table that is not named has none, and its rows are counted."""

Connection = psycopg.Connection[Any]


def shown(connection: Connection) -> dict[str, Table]:
    """Every table, in one snapshot, by the views."""
    tables: dict[str, Table] = {}
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        for name, query in QUERIES.items():
            rows = [tuple(map(_plain, row)) for row in connection.execute(query.encode())]
            tables[name] = _by_key(rows, KEYS[name]) if name in KEYS else Counter(rows)
    tables["parked_records"] = {key: Parked(*row) for key, row in tables["parked_records"].items()}
    for name in ("operation_minutes", "service_dependencies"):
        for key, row in tables[name].items():
            histogram = {Decimal(upper): calls for upper, calls in json.loads(row[-1]).items()}
            tables[name][key] = (*row[:-1], histogram)  # type: ignore[index]
    return tables


def _by_key(rows: Sequence[tuple[Any, ...]], width: int) -> dict[Any, Any]:
    table: dict[Any, Any] = {}
    for row in rows:
        key, rest = row[:width], row[width:]
        assert key not in table, f"{key} is there twice"
        table[key if width > 1 else key[0]] = rest if len(rest) > 1 else rest[0]
    return table


def _plain(value: Any) -> Any:
    return _document(value) if isinstance(value, dict | list) else value


class Comparison(NamedTuple):
    """Records that left fewer traces in some table than they must have, or more; and the first differences."""

    lost: int
    doubled: int
    differences: list[str]


def compare(wanted: Mapping[str, Table], found: Mapping[str, Table], first: int = 3) -> Comparison:
    """Row by row. A row that differs otherwise than by being absent or too many is only among the differences."""
    lost = doubled = 0
    differences: list[str] = []
    for name, table in wanted.items():
        here = found[name]
        wrong = [key for key in {**table, **here} if table.get(key) != here.get(key)]
        less, more = _balance(name, table, here, wrong)
        lost, doubled = lost + less, doubled + more
        if wrong:
            differences.append(f"{name}: {len(wrong)} rows of {len(table)} differ, {less} lost, {more} doubled")
        differences += [f"  {key}: must be {table.get(key)}, is {here.get(key)}" for key in wrong[:first]]
    return Comparison(lost, doubled, differences)


def _balance(name: str, table: Table, here: Table, wrong: Sequence[Any]) -> tuple[int, int]:
    def count(of: Table, key: Any) -> int:
        row = of.get(key)
        if row is None:
            return 0
        if name in ("operation_minutes", "service_dependencies", "metric_minutes"):
            return int(row[0])
        if name == "traces":
            return 1 + int(row[7])
        return 1 if name in KEYS else int(row)

    balance = [count(here, key) - count(table, key) for key in wrong]
    return -sum(each for each in balance if each < 0), sum(each for each in balance if each > 0)


def missing_from_log(log: Log, acknowledged: Mapping[tuple[str, int, int], bytes], prefix: str) -> list[str]:
    """Records that a broker acknowledged and that do not lie where it said."""
    ids = {
        (record.topic.on_broker(prefix), record.partition, record.offset): dict(record.headers).get("event_id")
        for record in log.records
    }
    return [
        f"{place} was acknowledged as {event_id.hex()}, the log has {ids.get(place)!r}"
        for place, event_id in acknowledged.items()
        if (ids.get(place) or b"").replace(b"-", b"").decode() != event_id.hex()
    ]
