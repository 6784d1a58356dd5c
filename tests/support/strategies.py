"""Facts of traces as they might come, and the log that holds them: for every test that folds.

Ids are few, so that facts meet in one trace; times are few, so that they contend; texts, numbers and tags are anything
that Avro can carry and Postgres can hold.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from itertools import pairwise
from typing import Any

from fastavro import parse_schema, schemaless_writer
from hypothesis import strategies as st

from spanfold.language.events import DomainEvent, SpanRecorded, TraceCompleted, TraceCreated, TraceEvent, TraceFailed
from spanfold.language.records import headers_of, key_of
from spanfold.language.topics import TRACES
from spanfold.projections.commit.batch import Batch
from spanfold.projections.commit.cut import RecordHeaders
from spanfold.schemas.catalogue import committed
from spanfold.schemas.codec import FRAME_BYTES, Codec, plain

LOG_TIME_MS = 1_795_000_000_000
"""When the broker had the records, unless a test says otherwise: 2026-11-18."""

NOW = LOG_TIME_MS * 1000
DAY = 86_400_000_000

MIN_TIME = -210_866_803_200_000_000
"""4714-11-24 BC, the first instant that Postgres knows, in µs since 1970."""
MAX_TIME = (1 << 63) - 2
"""The last but one that Avro can carry: of the last one, Postgres' extract(epoch) rounds the microseconds."""

CODEC = Codec()

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
trace_ids = st.sampled_from(["4bf92f3577b34da6a3ce929d0e0e4736", "a", "trace ü 🜁"])
event_times = st.sampled_from([NOW, NOW + 1, NOW - 7 * DAY, NOW - 30 * DAY, NOW + DAY]) | st.integers(
    NOW - 30 * DAY, NOW + DAY
)
any_times = event_times | st.sampled_from([MIN_TIME, -1, 0, MAX_TIME]) | st.integers(MIN_TIME, MAX_TIME)
scalars = texts | st.integers(-(1 << 63), (1 << 63) - 1) | st.floats() | st.booleans()
values = st.recursive(
    scalars | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=2),
    max_leaves=4,
)
"""Any value of JSON, and numbers that JSON lacks."""

tags = st.dictionaries(texts, values, max_size=3)

sources: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {
        "resource": st.sampled_from([{}, {"service.version": "1", "deployment.environment": "live"}]) | tags,
        "scope_name": st.sampled_from(["", "http"]) | texts,
        "scope_version": st.sampled_from(["", "2"]),
        "scope_attributes": st.just({}) | tags,
    }
)
"""Resource and scope of an event."""

root_ids = st.sampled_from(["1", "2", ""])
root_starts = st.sampled_from([NOW, NOW + 1]) | any_times
roots = st.none() | st.tuples(root_ids, root_starts)
"""Of a closing fact: the root span's id and start, or nothing."""

traces_created = st.builds(
    TraceCreated,
    aggregate_id=trace_ids,
    occurred_at=event_times,
    source=texts,
    service_name=texts,
    operation_name=texts,
    start_time=root_starts,
    span_id=st.none() | root_ids,
    tags=tags,
)


@st.composite
def _closed(draw: st.DrawFn, /, event_type: type[Any], **own: st.SearchStrategy[Any]) -> Any:
    root = draw(roots)
    return event_type(
        aggregate_id=draw(trace_ids),
        occurred_at=draw(event_times),
        source=draw(texts),
        end_time=draw(any_times),
        span_id=root and root[0],
        start_time=root and root[1],
        tags=draw(tags),
        **{name: draw(strategy) for name, strategy in own.items()},
    )


traces_completed = _closed(TraceCompleted, status=st.just("completed") | texts)
traces_failed = _closed(TraceFailed, error=texts)


service_names = st.sampled_from(["shop", "bank", "n" * 200 + "1", "n" * 200 + "2"]) | texts
span_ids = st.sampled_from(["1", "2", "3"]) | texts
kinds = st.sampled_from(["internal", "server", "client", "producer", "consumer"])


@st.composite
def _spans_recorded(draw: st.DrawFn) -> SpanRecorded:
    start, end = sorted((draw(any_times), draw(any_times)))
    return SpanRecorded(
        aggregate_id=draw(trace_ids),
        occurred_at=draw(event_times),
        source=draw(texts),
        span_id=draw(span_ids),
        parent_span_id=draw(st.none() | span_ids),
        service_name=draw(service_names),
        operation_name=draw(texts),
        start_time=start,
        end_time=end,
        kind=draw(kinds),
        status=draw(st.sampled_from(["unset", "ok", "error"])),
        status_message=draw(st.none() | texts),
        tags=draw(tags),
        events=tuple(draw(st.lists(_moments, max_size=2))),
        links=tuple(draw(st.lists(_links, max_size=2))),
        **draw(sources),
    )


_moments = st.fixed_dictionaries({"name": texts, "time": any_times, "attributes": tags})
_links = st.fixed_dictionaries({"trace_id": texts, "span_id": texts, "attributes": tags})
spans_recorded = _spans_recorded()

calls = st.builds(
    SpanRecorded,
    aggregate_id=st.sampled_from(["a", "a", "a", "b"]),
    occurred_at=st.integers(NOW, NOW + 2),
    source=st.just(""),
    span_id=st.sampled_from(["1", "2", "3", ""]),
    parent_span_id=st.sampled_from([None, "1", "2", "3", ""]),
    service_name=st.sampled_from(["shop", "bank", "post"]),
    operation_name=st.just("pay"),
    kind=kinds,
    status=st.sampled_from(["ok", "error"]),
    start_time=st.sampled_from([NOW, NOW, NOW - 1]),
    end_time=st.sampled_from([NOW, NOW, NOW, NOW + 60_000_000, NOW + 7 * DAY, NOW + 7 * DAY + 1]),
)
"""Spans that call each other in every way, also round in circles."""

rerecorded = st.builds(
    SpanRecorded,
    aggregate_id=st.sampled_from(["a", "a", "b"]),
    occurred_at=st.integers(NOW, NOW + 3) | st.just(NOW + 60_000_000),
    source=st.just(""),
    span_id=st.sampled_from(["1", "2"]),
    parent_span_id=st.sampled_from([None, "1", "2", "3"]),
    service_name=st.sampled_from(["shop", "shop", "bank"]),
    operation_name=st.sampled_from(["pay", "ship"]),
    kind=st.sampled_from(["server", "client"]),
    status=st.sampled_from(["ok", "error"]),
    start_time=st.sampled_from([NOW, NOW, NOW + 1]),
    end_time=st.sampled_from([NOW + 1, NOW + 2, NOW + 60_000_000, NOW + 7 * DAY, NOW + 7 * DAY + 1, NOW + 8 * DAY]),
    tags=st.sampled_from([{}, {"http.route": "/a"}, {"http.route": 7}]),
)
"""Few spans, recorded again and again, with other ends, parents and names."""

rooted = traces_created | traces_completed | traces_failed | rerecorded
"""Halves of several roots in few traces, and some spans."""

events = spans_recorded | traces_created | traces_completed | traces_failed


def distinct_events(
    max_size: int = 10, events: st.SearchStrategy[TraceEvent] = events
) -> st.SearchStrategy[list[TraceEvent]]:
    """Facts that are all different ones: of two with the same id, only the first is a fact."""
    return st.lists(events, max_size=max_size, unique_by=lambda event: event.event_id)


@dataclass(frozen=True)
class Record:
    """A record of the log."""

    offset: int
    key: bytes | None
    headers: RecordHeaders
    value: bytes | None
    log_time_ms: int = LOG_TIME_MS


def record(event: DomainEvent, offset: int = 0, **changes: Any) -> Record:
    """The record that carries this event, or one that differs from it by `changes`."""
    value = CODEC.encode(event.event_type, event.as_fields())
    return replace(Record(offset, key_of(event), headers_of(event), value), **changes)


def written(event: DomainEvent, offset: int = 0, **documents: str) -> Record:
    """The record of an event whose documents are these texts, which may be anything."""
    whole = record(event, offset)
    _, fields = CODEC.decode(whole.value)
    body = BytesIO()
    schemaless_writer(body, parse_schema(plain(committed().latest(event.event_type).load())), fields | documents)
    return replace(whole, value=(whole.value or b"")[:FRAME_BYTES] + body.getvalue())


def records_of(events: Sequence[DomainEvent], start: int = 0) -> list[Record]:
    """The events as they lie in the log, one after the other from `start`."""
    return [record(event, offset) for offset, event in enumerate(events, start)]


def batch(
    records: Sequence[Record],
    *,
    start: int | None = None,
    end: int | None = None,
    partition: int = 0,
    partitions: int = 1,
) -> Batch:
    """The records as a batch that covers just them, unless it is said to cover more. With one partition, every key is at
    home.
    """
    return Batch(
        topic=TRACES,
        partition=partition,
        partitions=partitions,
        start=(records[0].offset if records else 0) if start is None else start,
        end=(records[-1].offset + 1 if records else 0) if end is None else end,
        offsets=[each.offset for each in records],
        log_times_ms=[each.log_time_ms for each in records],
        keys=[each.key for each in records],
        headers=[each.headers for each in records],
        values=[each.value for each in records],
    )


def batch_of_events(events: Sequence[DomainEvent], start: int = 0) -> Batch:
    """The batch that holds these events."""
    return batch(records_of(events, start), start=start)


def cut(records: Sequence[Record], cuts: Sequence[int]) -> list[Batch]:
    """The same log as several batches, cut before these indexes; equal cuts make batches that cover nothing new."""
    borders = [0, *sorted(min(each, len(records)) for each in cuts), len(records)]
    return [batch(records[low:high]) for low, high in pairwise(borders) if high > low]


@st.composite
def logs(
    draw: st.DrawFn, max_events: int = 8, events: st.SearchStrategy[TraceEvent] = events
) -> tuple[list[TraceEvent], list[Record], list[Batch]]:
    """Distinct events; a log that holds them in any order, some several times; the log in batches."""
    distinct = draw(distinct_events(max_events, events))
    again = draw(st.lists(st.sampled_from(distinct), max_size=4)) if distinct else []
    written = records_of(draw(st.permutations([*distinct, *again])))
    cuts = draw(st.lists(st.integers(0, len(written)), max_size=4))
    return distinct, written, cut(written, cuts)
