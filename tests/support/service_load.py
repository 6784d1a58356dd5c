"""Records of services' instances, whose order the log arbitrates: some expect a version that is not so, come twice, hold several
events, or can't be read and hold up what comes after them until they are discarded.
"""

import random
import threading
from collections import defaultdict
from typing import Any, Final

from confluent_kafka import KafkaError, Message, Producer

from spanfold.language.events import (
    DomainEvent,
    RecordDiscarded,
    RecordRetried,
    ServiceDeregistered,
    ServiceHealthChanged,
    ServiceRegistered,
)
from spanfold.language.records import EXPECTED_VERSION, headers_of
from spanfold.language.settings import Settings
from spanfold.language.times import now_us
from spanfold.language.topics import SERVICES
from spanfold.schemas.batches import pack
from spanfold.schemas.codec import Codec

INSTANCES: Final = 12
EVERY_S: Final = 0.03

SPOILT: Final = b" and more than its schema knows"
"""The end of a value that can't be read."""

Record = tuple[str, bytes, list[tuple[str, bytes]]]
"""Key, value, headers."""


class ServiceLoad:
    """Appends until `over` is set. It knows each instance's version, because nobody else appends to it."""

    def __init__(self, settings: Settings, seed: int) -> None:
        self._rng, self._codec = random.Random(seed), Codec()
        self._topic = SERVICES.on_broker(settings.topic_prefix)
        self._producer = Producer(
            {
                "bootstrap.servers": settings.kafka_bootstrap, "enable.idempotence": True, "log_level": 0,
                "partitioner": "murmur2_random",
            }
        )  # fmt: skip
        self._versions = defaultdict[str, int](int)
        self._unread = defaultdict[str, list[int]](list)
        self._sent: list[Record] = []

    def run(self, over: threading.Event) -> None:
        """Raises what could not be delivered."""
        while not over.wait(EVERY_S):
            key, value, headers = record = self._next()
            self._sent.append(record)
            self._producer.produce(self._topic, value, key, headers=[*headers], on_delivery=self._told)
            self._producer.poll(0)
        assert self._producer.flush(90) == 0

    def _told(self, error: KafkaError | None, message: Message) -> None:
        assert error is None, error
        value, key = message.value(), message.key()
        if isinstance(value, bytes) and value.endswith(SPOILT) and isinstance(key, bytes):
            places = self._unread[key.decode()]
            offset = message.offset() or 0
            if offset not in places:
                places.append(offset)

    def _next(self) -> Record:
        chance = self._rng.random()
        instance = f"instance-{self._rng.randrange(INSTANCES)}"
        held = [each for each, offsets in self._unread.items() if offsets]
        if chance < 0.05 and self._sent:
            return self._again()
        if chance < 0.15:
            return self._record(self._event(instance), self._versions[instance] + self._rng.choice((-1, 1, 5)))
        if chance < 0.23 and held:
            return self._settled(self._rng.choice(held))
        self._versions[instance] += 1
        expected = self._versions[instance] - 1
        if 0.23 <= chance < 0.25:
            key, value, headers = self._record(self._event(instance), expected)
            return key, value + SPOILT, headers
        if chance < 0.35:
            events = [self._event(instance) for _ in range(self._rng.randrange(2, 4))]
            return self._record(pack(events, self._codec), expected)
        return self._record(self._event(instance), None if chance < 0.45 else expected)

    def _again(self) -> Record:
        """One of the last ones; not one that can't be read, which is told by its end."""
        record = self._rng.choice(self._sent[-30:])
        return self._next() if record[1].endswith(SPOILT) else record

    def _settled(self, instance: str) -> Record:
        """A fact about the first record of the instance that can't be read: to try it again changes nothing."""
        self._versions[instance] += 1
        kind = self._rng.choice((RecordDiscarded, RecordDiscarded, RecordRetried))
        offsets = self._unread[instance]
        offset = offsets.pop(0) if kind is RecordDiscarded else offsets[0]
        return self._record(kind(record_topic=SERVICES.name, record_offset=offset, **self._said(instance)), None)

    def _event(self, instance: str) -> DomainEvent:
        said = self._said(instance)
        match self._rng.randrange(4):
            case 0:
                return ServiceRegistered(
                    service_name="shop", host="10.0.0.1", port=self._rng.randrange(1, 65536), health_check_url="http://x/",
                    metadata={"zone": self._rng.choice("abc")}, **said,
                )  # fmt: skip
            case 1:
                return ServiceDeregistered(reason="leaves", **said)
            case _:
                return ServiceHealthChanged(status=self._rng.choice(("healthy", "unhealthy")), **said)

    def _said(self, instance: str) -> dict[str, Any]:
        return {
            "aggregate_id": instance, "occurred_at": now_us(), "source": "load", "event_id": self._rng.randbytes(16),
        }  # fmt: skip

    def _record(self, event: DomainEvent, expected: int | None) -> Record:
        headers = headers_of(event)
        if expected is not None:
            headers.append((EXPECTED_VERSION, str(expected).encode()))
        return event.aggregate_id, self._codec.encode(event.event_type, event.as_fields()), headers
