"""Spans as the tables hold them, what makes two records the same span, and what a span adds to the rollups.

A span that is recorded again is the same span if trace, span id, kind, service and start are the same and it ends within
MAX_SPAN_DAYS of its start. Of its records the one with the greatest (end_time, event_id) is the row. A record that ends later
than that is a span of its own: rows so old may be gone, and no rule may depend on them.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import orjson

from spanfold.language.topics import US_PER_DAY, US_PER_MINUTE
from spanfold.language.trace_identity import own_id
from spanfold.postgres.copying import PG_EPOCH_US
from spanfold.projections.resources import NOBODY, Source, SourceIds, source_of
from spanfold.projections.traces.duration_histogram import bucket_of
from spanfold.projections.traces.tables import MAX_CALL_DAYS
from spanfold.schemas.codec import Fields

ROLLUP_NAME_CHARACTERS: Final = 200
"""Names are cut to this in the keys of rollups: a B-tree key holds 2,704 bytes."""

MAX_CALL_US: Final = MAX_CALL_DAYS * US_PER_DAY

Identity = tuple[str, str, str, str, int, bytes]
"""(trace_id, span_id, kind, service_name, start, event_id of a span that is longer than MAX_SPAN_DAYS else b"")."""

OperationKey = tuple[str, str, str, str, int]
"""(service_name, operation_name, kind, route, minute in µs since 2000)."""


class Span(NamedTuple):
    """What tells a span from others, and what it adds to the rollups. Times in µs since 2000 UTC; `occurred` is the event's.
    `version` is its record's offset + 1. `columns` are those of SPANS_TABLE that nothing else needs; neither they nor the source
    are read back from the table.
    """

    trace_id: str
    span_id: str
    parent_span_id: str | None
    service_name: str
    operation_name: str
    kind: str
    status: str
    start: int
    end: int
    occurred: int
    route: str
    event_id: bytes
    version: int
    columns: tuple[Any, ...] = ()
    source: Source = NOBODY

    @property
    def identity(self) -> Identity:
        own = own_id(self.start, self.end, self.event_id)
        return (self.trace_id, self.span_id, self.kind, self.service_name, self.start, own)

    def replaces(self, other: "Span") -> bool:
        """Whether this record of a span is the row, and not that one."""
        return (self.end, self.event_id) > (other.end, other.event_id)


def span_of(offset: int, fields: Fields) -> Span:
    """The span of a SpanRecorded."""
    tags: bytes = fields["tags"]
    return Span(
        fields["aggregate_id"], fields["span_id"], fields["parent_span_id"], fields["service_name"],
        fields["operation_name"], fields["kind"], fields["status"],
        fields["start_time"] - PG_EPOCH_US, fields["end_time"] - PG_EPOCH_US, fields["occurred_at"] - PG_EPOCH_US,
        route_of(tags) if b'"http.route"' in tags else "", fields["event_id"], offset + 1,
        (fields["status_message"], tags, fields["events"], fields["links"]), source_of(fields),
    )  # fmt: skip


def route_of(tags: bytes) -> str:
    """The attribute http.route of tags in jsonb's binary form; empty if there is none, or it is no text."""
    route = orjson.loads(tags[1:]).get("http.route")
    return route if isinstance(route, str) else ""


def row_of(span: Span, ids: SourceIds) -> tuple[Any, ...]:
    """The row of SPANS_TABLE."""
    status_message, tags, events, links = span.columns
    return (
        span.trace_id, span.span_id, span.parent_span_id, span.service_name, span.operation_name, span.kind, span.status,
        status_message, span.start, span.end, tags, events, links, span.version, span.event_id,
        None if span.occurred == span.end else span.occurred, ids[span.source],
    )  # fmt: skip


@dataclass(slots=True)
class Rollup:
    """What some calls add up to. Buckets are those of duration_histogram.py."""

    calls: int = 0
    errors: int = 0
    duration_us: int = 0
    buckets: dict[int, int] = field(default_factory=dict)

    def add(self, duration_us: int, is_error: bool, times: int = 1) -> None:
        bucket = bucket_of(duration_us)
        self.calls += times
        self.errors += times * is_error
        self.duration_us += times * duration_us
        self.buckets[bucket] = self.buckets.get(bucket, 0) + times


Operations = dict[OperationKey, Rollup]


def operations_of(spans: Iterable[Span]) -> Operations:
    """What these spans add to the operations. A span counts in the minute of its event's time."""
    operations: Operations = {}
    for span in spans:
        key = (
            span.service_name[:ROLLUP_NAME_CHARACTERS], span.operation_name[:ROLLUP_NAME_CHARACTERS], span.kind,
            span.route[:ROLLUP_NAME_CHARACTERS], minute_of(span.occurred),
        )  # fmt: skip
        rollup = operations.get(key)
        if rollup is None:
            rollup = operations[key] = Rollup()
        rollup.add(span.end - span.start, span.status == "error")
    return operations


def minute_of(time: int) -> int:
    """The minute in which a time lies; both in µs since 2000 UTC."""
    return (time + PG_EPOCH_US) // US_PER_MINUTE * US_PER_MINUTE - PG_EPOCH_US
