"""Results of handlers and operations as JSON."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, Final

from spanfold.language.events import DomainEvent
from spanfold.language.ids import id_text
from spanfold.language.json_values import number_text
from spanfold.language.positions import Position

_ENVELOPE: Final = ("aggregate_id", "occurred_at", "source", "event_id")


def plain(value: Any) -> Any:
    """The value as objects, lists, strings and numbers. Times stay µs since 1970 UTC; a position is its text, bytes are hex,
    NaN and infinities are text, an event is an envelope with its own fields as `event_data`.
    """
    match value:
        case Position():
            return str(value)
        case DomainEvent():
            return _event(value)
        case bytes():
            return value.hex()
        case float():
            return number_text(value)
        case Mapping():
            return {str(name): plain(item) for name, item in value.items()}
        case list() | tuple():
            return [plain(item) for item in value]
        case _ if is_dataclass(value):
            return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
        case _:
            return value


def _event(event: DomainEvent) -> dict[str, Any]:
    return {
        "event_type": event.event_type,
        "event_id": id_text(event.event_id),
        "aggregate_id": event.aggregate_id,
        "occurred_at": event.occurred_at,
        "source": event.source,
        "event_data": {name: plain(item) for name, item in event.as_fields().items() if name not in _ENVELOPE},
    }
