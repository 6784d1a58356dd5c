"""Bytes of the log → the domain's events, as write side and snapshots take them."""

from collections.abc import Container
from typing import Any

from spanfold.application.aggregates import event_class
from spanfold.language.events import DomainEvent
from spanfold.language.topics import BATCH, NOT_FOLDED
from spanfold.schemas.batches import unpack
from spanfold.schemas.codec import Codec, Fields


def events_of(codec: Codec, payload: bytes | None, only: Container[str] | None = None) -> list[DomainEvent]:
    """The events that a record's value holds, in their order, or those of these types; none if it is about another record.
    PoisonRecord says why it can't be read.
    """
    event_type, fields = codec.decode(payload)
    facts = unpack(fields, codec) if event_type == BATCH else [(event_type, fields)]
    return [event_of(each, said) for each, said in facts if each not in NOT_FOLDED and (only is None or each in only)]


def event_of(event_type: str, fields: Fields) -> DomainEvent:
    """The event with these decoded fields."""
    # Avro's arrays are lists, and an event's are tuples, because it never changes
    said: dict[str, Any] = {name: tuple(value) if type(value) is list else value for name, value in fields.items()}
    return event_class(event_type)(**said)
