"""Several events as one record, and back: an EventBatch holds each event as the bytes that its own record would have.

The batch is what the log judges: one event id, one expected version, one version. Its events have ids of their own, which
are theirs in the tables and are not looked at when a verdict is given.
"""

from collections.abc import Sequence
from typing import Any

from spanfold.language.errors import InvalidInput, PoisonRecord
from spanfold.language.events import DomainEvent, EventBatch
from spanfold.language.parking import ParkedReason
from spanfold.language.topics import BATCH
from spanfold.schemas.codec import Codec, Fields

BatchedFacts = list[tuple[str, Fields]]
"""Type and fields of each event of a batch, in its order."""


def pack(events: Sequence[DomainEvent], codec: Codec, event_id: bytes = b"") -> EventBatch:
    """One batch of these events of one aggregate. It happened when the last of them did; its id is derived from theirs
    unless it is given. InvalidInput when there are none, or they are not of one aggregate and topic.
    """
    homes = {(event.topic.name, event.aggregate_id) for event in events}
    if len(homes) != 1:
        raise InvalidInput(f"a batch takes the events of one aggregate, got {sorted(homes) or 'none'}")
    return EventBatch(
        aggregate_id=events[0].aggregate_id,
        occurred_at=max(event.occurred_at for event in events),
        source=events[0].source,
        event_id=event_id,
        events=tuple(_packed(event, codec) for event in events),
    )


def unpack(batch: Fields, codec: Codec) -> BatchedFacts:
    """The events of a decoded EventBatch. PoisonRecord when one can't be read (then none of them is to be folded), is of
    another aggregate, or contradicts what the batch says of it.
    """
    facts = [(*codec.decode(each["payload"]), each) for each in batch["events"]]
    if not facts:
        raise PoisonRecord(ParkedReason.UNREADABLE, "the batch holds no event")
    for event_type, fields, said in facts:
        if event_type == BATCH:
            raise PoisonRecord(ParkedReason.UNREADABLE, "a batch within a batch")
        found = (event_type, fields["event_id"], fields["aggregate_id"])
        if found != (said["event_type"], said["event_id"], batch["aggregate_id"]):
            raise PoisonRecord(
                ParkedReason.UNREADABLE, f"the batch contradicts its {said['event_type']} on type, id or aggregate"
            )
    return [(event_type, fields) for event_type, fields, _ in facts]


def _packed(event: DomainEvent, codec: Codec) -> dict[str, Any]:
    payload = codec.encode(event.event_type, event.as_fields())
    return {"event_type": event.event_type, "event_id": event.event_id, "payload": payload}
