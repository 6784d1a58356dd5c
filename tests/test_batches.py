"""Several events in one record."""

from dataclasses import replace
from typing import Any

import pytest

from spanfold.language.errors import InvalidInput, PoisonRecord
from spanfold.language.events import EventBatch, ServiceHealthChanged, ServiceRegistered, TraceCompleted
from spanfold.language.topics import SERVICES
from spanfold.schemas.batches import pack, unpack
from spanfold.schemas.codec import Codec, Fields

CODEC = Codec()
SAID: dict[str, Any] = {"aggregate_id": "cart-1", "source": "test"}
REGISTERED = ServiceRegistered(
    **SAID, occurred_at=5, service_name="cart", host="h", port=80, health_check_url="http://h/health"
)
HEALTHY = ServiceHealthChanged(**SAID, occurred_at=7, status="healthy")
BATCH = pack([REGISTERED, HEALTHY], CODEC)


def through_the_log(batch: EventBatch) -> Fields:
    event_type, fields = CODEC.decode(CODEC.encode(batch.event_type, batch.as_fields()))
    assert event_type == "EventBatch"
    return fields


def test_a_batch_comes_out_of_the_log_as_the_events_that_went_in() -> None:
    facts = unpack(through_the_log(BATCH), CODEC)
    assert facts == [(each.event_type, each.as_fields()) for each in (REGISTERED, HEALTHY)]


def test_a_batch_is_an_event_of_its_aggregate_with_an_id_of_its_own() -> None:
    assert (BATCH.aggregate_id, BATCH.topic, BATCH.occurred_at) == ("cart-1", SERVICES, 7)
    assert BATCH.event_id not in (REGISTERED.event_id, HEALTHY.event_id)
    assert pack([REGISTERED, HEALTHY], CODEC).event_id == BATCH.event_id
    assert pack([HEALTHY, REGISTERED], CODEC).event_id != BATCH.event_id


@pytest.mark.parametrize(
    "events",
    [
        [],
        [HEALTHY, replace(HEALTHY, aggregate_id="cart-2")],
        [HEALTHY, TraceCompleted(**SAID, occurred_at=7, end_time=7)],
    ],
)
def test_a_batch_is_of_one_aggregate(events: Any) -> None:
    with pytest.raises(InvalidInput, match="one aggregate"):
        pack(events, CODEC)


def changed(**changes: Any) -> Fields:
    fields = through_the_log(BATCH)
    return {**fields, "events": [fields["events"][0], {**fields["events"][1], **changes}]}


@pytest.mark.parametrize(
    ("batch", "complaint"),
    [
        ({**BATCH.as_fields(), "events": []}, "no event"),
        ({**BATCH.as_fields(), "aggregate_id": "cart-2"}, "contradicts"),
        (changed(event_type="ServiceRegistered"), "contradicts"),
        (changed(event_id=bytes(16)), "contradicts"),
        (changed(payload=b"\0\0\0\0\0"), "upgrade, then retry"),
        (changed(payload=CODEC.encode("EventBatch", BATCH.as_fields())), "within a batch"),
    ],
)
def test_a_batch_that_contradicts_itself_is_not_read_at_all(batch: Fields, complaint: str) -> None:
    with pytest.raises(PoisonRecord, match=complaint):
        unpack(batch, CODEC)
