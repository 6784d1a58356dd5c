"""Events as JSON, for people and for HTTP:

    {"event_type": "TraceCreated", "aggregate_id": "4bf92f35…", "event_data": {"service_name": …, "operation_name": …}}

An event may also carry `event_id` (a UUID), `occurred_at` and `source`. `event_data` has the fields of its type, named as in
spanfold.language.events. A time is RFC 3339 text, UTC where it names no zone (digits beyond µs are cut off), or an integer of µs
since 1970 UTC; one that can only be seconds, ms or ns is refused.

| if absent    | its default                                                                                          |
|--------------|------------------------------------------------------------------------------------------------------|
| event_id     | derived from the event's content: the same facts sent twice are the same event                       |
| occurred_at  | event_data (TraceCreated: start_time, others: end_time), so that a retry is the same event; else now |
| start_time   | TraceCreated: occurred_at                                                                            |
| end_time     | TraceCompleted, TraceFailed: occurred_at                                                             |
| aggregate_id | LogRecorded: trace_id, else service_name; MetricUpdated: the series of resource, scope, name and labels |
| source       | the caller                                                                                           |
"""

import uuid
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, fields
from typing import Any, Final, assert_never, cast

from spanfold.language import metric_json
from spanfold.language.errors import InvalidInput
from spanfold.language.events import EVENT_TYPES, Event, LogRecorded, MetricUpdated, SpanRecorded, series_id
from spanfold.language.ids import id_text
from spanfold.language.json_values import (
    Reader,
    anything,
    choice,
    closest,
    integer,
    list_of,
    mapping,
    name_of,
    object_of,
    or_null,
    refuse_missing,
    refuse_unknown,
    tags,
    text,
    texts,
    time_text,
    time_us,
    wrong,
)
from spanfold.language.severities import MAX_SEVERITY
from spanfold.language.topics import BATCH, NOT_FOLDED, ON_EVERY_TOPIC, TRACE_ERASED, PublishableEventType

MAX_NAME_CHARACTERS: Final = 512
"""The longest aggregate id, span id, source, service name and operation name."""

MAX_KEY_BYTES: Final = 512
"""The longest aggregate id in UTF-8. It is the record's key, and a record with a longer key is rejected."""

ENVELOPE: Final = ("event_type", "aggregate_id", "event_id", "occurred_at", "source", "event_data")

_NAME: Final = name_of(MAX_NAME_CHARACTERS)
_NO_TAGS: Final[dict[str, Callable[[], Any]]] = {"attributes": dict}

SERVICE_STATUS: Final = choice("starting", "healthy", "unhealthy", "stopping")

_READERS: Final[dict[str, Reader]] = {
    "service_name": _NAME,
    "operation_name": _NAME,
    "span_id": _NAME,
    "parent_span_id": or_null(_NAME),
    "kind": choice("internal", "server", "client", "producer", "consumer"),
    "status_message": or_null(text),
    "error": text,
    "start_time": time_us,
    "end_time": time_us,
    "tags": tags,
    "events": list_of(object_of({"name": text, "time": time_us, "attributes": tags}, _NO_TAGS)),
    "host": _NAME,
    "port": integer(1, 65_535),
    "health_check_url": text,
    "metadata": texts,
    "reason": text,
    "links": list_of(object_of({"trace_id": _NAME, "span_id": _NAME, "attributes": tags}, _NO_TAGS)),
    "resource": tags,
    "scope_name": text,
    "scope_version": text,
    "scope_attributes": tags,
}

_ROOT: Final[dict[str, Reader]] = {"span_id": or_null(_NAME), "start_time": or_null(time_us)}

_READERS_OF_TYPE: Final[dict[str, dict[str, Reader]]] = {
    "SpanRecorded": {"status": choice("unset", "ok", "error")},
    "TraceCreated": {"span_id": or_null(_NAME)},
    "TraceCompleted": {"status": _NAME, **_ROOT},
    "TraceFailed": _ROOT,
    "ServiceRegistered": {"status": SERVICE_STATUS},
    "ServiceHealthChanged": {"status": SERVICE_STATUS},
    "MetricUpdated": {"name": _NAME, **metric_json.READERS},
    "LogRecorded": {
        **{name: or_null(_NAME) for name in ("trace_id", "span_id")},
        "severity_number": integer(0, MAX_SEVERITY),
        "severity_text": text,
        "body": anything,
        "event_name": text,
        "observed_time": or_null(time_us),
        "ordinal": integer(0, (1 << 31) - 1),
    },
}

_TIMES: Final = ("start_time", "end_time", "observed_time")

_CLOSING: Final = ("TraceCompleted", "TraceFailed")

PUBLISHABLE: Final = tuple(name for name in EVENT_TYPES if name not in (*NOT_FOLDED, BATCH))
"""The event types that anyone may publish."""


def event_from_json(obj: Any, now_us: int, source: str) -> Event:
    """The event that a JSON object (as json.loads returns it) describes; `now_us` and `source` are defaults.

    InvalidInput names the field that is wrong, unknown or missing, and says what was expected.
    """
    envelope = mapping(obj, "event")
    refuse_unknown(envelope, ENVELOPE, "event")
    refuse_missing(envelope, ("event_type",), "event")
    event_type = _event_type(envelope["event_type"])
    refuse_missing(envelope, () if event_type in _AGGREGATE_OF else ("aggregate_id",), "event")
    data = _data(event_type, envelope.get("event_data", {}))
    time_field = _time_field(event_type)
    occurred_at = time_us(envelope.get("occurred_at", data.get(time_field, now_us)), "occurred_at")
    if time_field and event_type != SpanRecorded.__name__:
        data.setdefault(time_field, occurred_at)
    _complete(event_type, data)
    return EVENT_TYPES[event_type](
        aggregate_id=_aggregate_id(event_type, envelope, data),
        event_id=_event_id(envelope.get("event_id")),
        occurred_at=occurred_at,
        source=_NAME(envelope.get("source", source), "source"),
        **data,
    )


def event_to_json(event: Event) -> dict[str, Any]:
    """The inverse of event_from_json. Nothing is left out, and times are RFC 3339 in UTC."""
    data = {own.name: getattr(event, own.name) for own in _own_fields(event.event_type)}
    for name in _TIMES:
        if data.get(name) is not None:
            data[name] = time_text(data[name])
    if isinstance(event, SpanRecorded):
        data["events"] = [{**span_event, "time": time_text(span_event["time"])} for span_event in event.events]
        data["links"] = [dict(link) for link in event.links]
    if isinstance(event, MetricUpdated):
        data = metric_json.as_json(data)
    return {
        "event_type": event.event_type,
        "aggregate_id": event.aggregate_id,
        "event_id": id_text(event.event_id),
        "occurred_at": time_text(event.occurred_at),
        "source": event.source,
        "event_data": data,
    }


def _event_type(value: Any) -> PublishableEventType:
    if value in ON_EVERY_TOPIC:
        raise InvalidInput(f"event_type: {value} settles a parked record; only `spanfold parked` publishes it")
    if value == TRACE_ERASED:
        raise InvalidInput(f"event_type: {value} erases a trace; only `spanfold erase` publishes it, to every topic")
    if not isinstance(value, str) or value not in PUBLISHABLE:
        hint = closest(value, PUBLISHABLE)
        raise InvalidInput(f"event_type: unknown type {value!r}{hint}; use one of {', '.join(PUBLISHABLE)}")
    return cast(PublishableEventType, value)


def _time_field(event_type: PublishableEventType) -> str:
    """The field of event_data that has the event's time; empty if none has."""
    match event_type:
        case "TraceCreated":
            return "start_time"
        case "SpanRecorded" | "TraceCompleted" | "TraceFailed":
            return "end_time"
        case "MetricUpdated" | "LogRecorded" | "ServiceRegistered" | "ServiceHealthChanged" | "ServiceDeregistered":
            return ""
        case unknown:
            assert_never(unknown)


def _aggregate_id(event_type: str, envelope: Mapping[str, Any], data: Mapping[str, Any]) -> str:
    """The one in the envelope, else the one that the type derives from its data."""
    derived = _AGGREGATE_OF[event_type](data) if event_type in _AGGREGATE_OF else None
    named = envelope.get("aggregate_id", derived)
    if event_type == LogRecorded.__name__ and data.get("trace_id") and named != derived:
        raise wrong("aggregate_id", f"the trace_id {derived}, or nothing at all", named)
    aggregate_id = str(_NAME(named, "aggregate_id"))
    if len(aggregate_id.encode()) > MAX_KEY_BYTES:
        raise wrong("aggregate_id", f"at most {MAX_KEY_BYTES} bytes of UTF-8", aggregate_id)
    return aggregate_id


def _series(data: Mapping[str, Any]) -> str:
    return series_id(
        data.get("resource") or {"service.name": data["service_name"]},
        data.get("scope_name", ""),
        data["name"],
        data.get("labels", {}),
        data.get("scope_version", ""),
        data.get("scope_attributes"),
    )


_AGGREGATE_OF: Final[Mapping[str, Callable[[Mapping[str, Any]], str]]] = {
    "LogRecorded": lambda data: str(data.get("trace_id") or data["service_name"]),
    "MetricUpdated": _series,
}


def _event_id(value: Any) -> bytes:
    if value is None:
        return b""
    try:
        return uuid.UUID(text(value, "event_id")).bytes
    except ValueError:
        raise InvalidInput(f"event_id: expected a UUID of 36 characters, got {value!r}") from None


def _data(event_type: str, value: Any) -> dict[str, Any]:
    data = mapping(value, "event_data")
    refuse_unknown(data, [own.name for own in _own_fields(event_type)], f"event_data of {event_type}")
    readers = {**_READERS, **_READERS_OF_TYPE.get(event_type, {})}
    return {name: readers[name](item, f"event_data.{name}") for name, item in data.items()}


def _complete(event_type: str, data: dict[str, Any]) -> None:
    if event_type == SpanRecorded.__name__:
        data.setdefault("parent_span_id", None)
    required = [own.name for own in _own_fields(event_type) if not _has_default(own)]
    refuse_missing(data, required, f"event_data of {event_type}")
    if event_type == SpanRecorded.__name__ and data["end_time"] < data["start_time"]:
        raise InvalidInput("event_data: end_time is before start_time")
    if event_type in _CLOSING and (data.get("span_id") is None) is not (data.get("start_time") is None):
        raise InvalidInput("event_data: span_id and start_time are the root span's: give both or neither")
    if event_type == MetricUpdated.__name__:
        metric_json.refuse_incoherent(data)


def _own_fields(event_type: str) -> list[Field[Any]]:
    """The fields that `event_data` of this type may have. KeyError for an unknown type."""
    return [own for own in fields(EVENT_TYPES[event_type]) if own.name not in ENVELOPE]


def _has_default(own: Field[Any]) -> bool:
    return own.default is not MISSING or own.default_factory is not MISSING
