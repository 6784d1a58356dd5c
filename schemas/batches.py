"""Several events as one record, and back. An EventBatch contains its events as the bytes that their own records would have.

The log judges the batch as a whole: one event id, one expected version, one version. Its events have ids of their own, which the
tables use and verdicts ignore.
"""

from collections.abc import Sequence
from typing import Any

from spanfold.language.errors import InvalidInput, PoisonRecord
from spanfold.language.events import DomainEvent, EventBatch
from spanfold.language.parking import ParkedReason
from spanfold.language.topics import BATCH
from spanfold.schemas.codec import Codec, Fields

BatchedFacts = list[tuple[str, Fields]]
"""Type and fields of the events of a batch, in order."""


def pack(events: Sequence[DomainEvent], codec: Codec, event_id: bytes = b"") -> EventBatch:
    """A batch of these events of one aggregate. Its time is that of the last event; its id is derived from theirs by default.
    InvalidInput when there are none, or they belong to more than one aggregate or topic.
    """
    homes = {(event.topic.name, event.aggregate_id) for event in events}
    if len(homes) != 1:
        raise InvalidInput(f"a batch takes events of one aggregate, got events of {sorted(homes) or 'none'}")
    return EventBatch(
        aggregate_id=events[0].aggregate_id,
        occurred_at=max(event.occurred_at for event in events),
        source=events[0].source,
        event_id=event_id,
        events=tuple(_packed(event, codec) for event in events),
    )


def unpack(batch: Fields, codec: Codec) -> BatchedFacts:
    """The events of a decoded EventBatch. PoisonRecord when one of them can't be read (then none is to be folded), belongs to
    another aggregate, or has another type or id than the batch says.
    """
    facts = [(*codec.decode(entry["payload"]), entry) for entry in batch["events"]]
    if not facts:
        raise PoisonRecord(ParkedReason.UNREADABLE, "the batch has no events")
    for event_type, fields, entry in facts:
        if event_type == BATCH:
            raise PoisonRecord(ParkedReason.UNREADABLE, "a batch within a batch")
        identity = (event_type, fields["event_id"], fields["aggregate_id"])
        if identity != (entry["event_type"], entry["event_id"], batch["aggregate_id"]):
            raise PoisonRecord(
                ParkedReason.UNREADABLE, f"the batch contradicts its {entry['event_type']} on type, id or aggregate"
            )
    return [(event_type, fields) for event_type, fields, _ in facts]


def _packed(event: DomainEvent, codec: Codec) -> dict[str, Any]:
    payload = codec.encode(event.event_type, event.as_fields())
    return {"event_type": event.event_type, "event_id": event.event_id, "payload": payload}
