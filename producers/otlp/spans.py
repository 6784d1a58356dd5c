"""Spans of OTLP's messages → SpanRecorded."""

from collections.abc import Iterable, Iterator
from typing import Any, Final

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from spanfold.language.errors import InvalidInput
from spanfold.language.events import SpanRecorded, Tags
from spanfold.producers.attributes import tags_of, text_of
from spanfold.producers.resources import NS_PER_US, Origin, origin_of, within_scope
from spanfold.producers.spans import with_dropped

TRACE_ID_BYTES: Final = 16
SPAN_ID_BYTES: Final = 8

# OTLP allows SPAN_KIND_UNSPECIFIED to be treated as internal
_KINDS: Final = {
    Span.SPAN_KIND_SERVER: "server",
    Span.SPAN_KIND_CLIENT: "client",
    Span.SPAN_KIND_PRODUCER: "producer",
    Span.SPAN_KIND_CONSUMER: "consumer",
}
_STATUSES: Final = {Status.STATUS_CODE_OK: "ok", Status.STATUS_CODE_ERROR: "error"}
_NO_SPAN: Final = bytes(SPAN_ID_BYTES)
_SCALARS: Final = frozenset({"string_value", "bool_value", "int_value", "double_value", "bytes_value"})


def origin_of_resource(resource: Resource) -> Origin:
    """The origin of all spans of one resource."""
    return origin_of(dict(_attributes(resource.attributes)))


def origin_in_scope(origin: Origin, scope: InstrumentationScope) -> Origin:
    """The same for those of one of its scopes."""
    return within_scope(origin, scope.name, scope.version, dict(_attributes(scope.attributes)))


def recorded(span: Span, origin: Origin) -> SpanRecorded:
    """The span as an event. InvalidInput says why it can't be one.

    As with the SDK: ns become µs by rounding down, and a span whose clock went backwards ends when it started. A parent id of
    zeros is none.
    """
    _check(span)
    start = span.start_time_unix_nano // NS_PER_US
    end = max(span.end_time_unix_nano // NS_PER_US, start)
    parent = span.parent_span_id
    return SpanRecorded(
        aggregate_id=span.trace_id.hex(),
        occurred_at=end,
        span_id=span.span_id.hex(),
        parent_span_id=parent.hex() if parent and parent != _NO_SPAN else None,
        operation_name=text_of(span.name),
        start_time=start,
        end_time=end,
        kind=_KINDS.get(span.kind, "internal"),
        status=_STATUSES.get(span.status.code, "unset"),
        status_message=text_of(span.status.message) or None,
        tags=with_dropped(
            _tags(span.attributes),
            span.dropped_attributes_count,
            span.dropped_events_count,
            span.dropped_links_count,
        ),
        events=tuple(_event(event) for event in span.events) if span.events else (),
        links=tuple(_link(link) for link in span.links) if span.links else (),
        **origin,
    )


def _check(span: Span) -> None:
    _check_id("trace_id", span.trace_id, TRACE_ID_BYTES)
    _check_id("span_id", span.span_id, SPAN_ID_BYTES)
    if len(span.parent_span_id) not in (0, SPAN_ID_BYTES):
        raise InvalidInput(f"parent_span_id has {len(span.parent_span_id)} bytes, not {SPAN_ID_BYTES} or none")
    if not span.start_time_unix_nano or not span.end_time_unix_nano:
        raise InvalidInput("start_time_unix_nano and end_time_unix_nano must both be set")


def _check_id(name: str, value: bytes, size: int) -> None:
    if len(value) != size:
        raise InvalidInput(f"{name} has {len(value)} bytes, not {size}")
    if not any(value):
        raise InvalidInput(f"{name} is all zeros")


def _event(event: Span.Event) -> dict[str, Any]:
    return {
        "name": text_of(event.name),
        "time": event.time_unix_nano // NS_PER_US,
        "attributes": _tags(event.attributes),
    }


def _link(link: Span.Link) -> dict[str, Any]:
    return {"trace_id": link.trace_id.hex(), "span_id": link.span_id.hex(), "attributes": _tags(link.attributes)}


def _tags(attributes: Iterable[KeyValue]) -> Tags:
    return tags_of(dict(_attributes(attributes)))


def _attributes(pairs: Iterable[KeyValue]) -> Iterator[tuple[str, Any]]:
    for pair in pairs:
        yield pair.key, _value(pair.value)


def _value(value: AnyValue) -> Any:
    """The value as the SDK represents it; None if it is not set, or of a kind that this version does not know."""
    kind = value.WhichOneof("value")
    if kind in _SCALARS:
        return getattr(value, kind)
    if kind == "array_value":
        return [_value(item) for item in value.array_value.values]
    if kind == "kvlist_value":
        return dict(_attributes(value.kvlist_value.values))
    return None
