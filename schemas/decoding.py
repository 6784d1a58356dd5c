"""Bytes of the log → domain events, for the write side and snapshots."""

from collections.abc import Container
from typing import Any

from spanfold.application.aggregates import event_class
from spanfold.language.events import DomainEvent
from spanfold.language.topics import BATCH, NOT_FOLDED
from spanfold.schemas.batches import unpack
from spanfold.schemas.codec import Codec, Fields


def events_of(codec: Codec, payload: bytes | None, only: Container[str] | None = None) -> list[DomainEvent]:
    """The events in a record's value, in order; with `only`, those of these types. Empty for a record about another record, such
    as RecordRetried. PoisonRecord says why the value can't be read.
    """
    event_type, fields = codec.decode(payload)
    facts = unpack(fields, codec) if event_type == BATCH else [(event_type, fields)]
    return [
        event_of(codec, name, own) for name, own in facts if name not in NOT_FOLDED and (only is None or name in only)
    ]


def event_of(codec: Codec, event_type: str, fields: Fields) -> DomainEvent:
    """The event with these decoded fields. PoisonRecord when one of its documents is not JSON."""
    values = codec.with_values(event_type, fields)
    # events are immutable and have tuples where Avro and JSON have lists
    frozen: dict[str, Any] = {name: tuple(value) if type(value) is list else value for name, value in values.items()}
    return event_class(event_type)(**frozen)
