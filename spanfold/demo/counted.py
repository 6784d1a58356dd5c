"""What the log holds of a run: read record by record from the topics, not taken from anybody's word."""

import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from confluent_kafka import Consumer, Message, TopicPartition

from spanfold.kafka.client import kafka_config
from spanfold.language.errors import LogUnavailable, PoisonRecord
from spanfold.language.settings import Settings
from spanfold.language.severities import SEVERITIES
from spanfold.language.topics import Partition, installed_topics
from spanfold.schemas.codec import Codec

TIMEOUT_S: Final = 60.0


@dataclass
class Recorded:
    """The records of a run by event type, how many are of logged errors, and the points of each of its metric series by their
    times.
    """

    records: Counter[str] = field(default_factory=Counter)
    errors: int = 0
    series: dict[str, set[int]] = field(default_factory=dict)

    @property
    def points(self) -> int:
        """How many points there are: one for each series and time."""
        return sum(map(len, self.series.values()))


def records_between(
    settings: Settings, starts: Mapping[Partition, int], ends: Mapping[Partition, int], run: str
) -> Recorded:
    """The records there whose source is an instance of this run. LogUnavailable after TIMEOUT_S."""
    recorded, codec, consumer = Recorded(), Codec(), _consumer(settings)
    names = {topic.name: topic.on_broker(settings.topic_prefix) for topic in installed_topics()}
    left = {
        (names[topic], number): end for (topic, number), end in ends.items() if end > starts.get((topic, number), 0)
    }
    begin = {(names[topic], number): start for (topic, number), start in starts.items()}
    consumer.assign([TopicPartition(*partition, begin.get(partition, 0)) for partition in left])
    deadline = time.monotonic() + TIMEOUT_S
    while left:
        if time.monotonic() > deadline:
            raise LogUnavailable(f"{', '.join(names.values())} could not be read within {TIMEOUT_S:g} s")
        for message in consumer.consume(5000, 0.5):
            _note(recorded, codec, message, run)
            place = (message.topic() or "", message.partition() or 0)
            if (message.offset() or 0) + 1 >= left.get(place, 1 << 62):
                del left[place]
    consumer.close()
    return recorded


def _note(recorded: Recorded, codec: Codec, message: Message, run: str) -> None:
    with suppress(PoisonRecord):  # somebody else's
        event_type, fields = codec.decode(message.value())
        if not fields["source"].endswith(f"/{run}"):
            return
        recorded.records[event_type] += 1
        if event_type == "LogRecorded":
            recorded.errors += fields["severity_number"] >= SEVERITIES["ERROR"]
        if event_type == "MetricUpdated":
            recorded.series.setdefault(fields["aggregate_id"], set()).add(fields["occurred_at"])


def _consumer(settings: Settings) -> Consumer:
    own = {"group.id": "spanfold-demo", "enable.auto.commit": False, "auto.offset.reset": "earliest"}
    return Consumer(kafka_config(settings) | own)
