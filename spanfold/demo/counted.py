"""What the log holds of a run: read record by record from the topic, not taken from anybody's word."""

import time
from collections import Counter
from contextlib import suppress
from typing import Final

from confluent_kafka import Consumer, KafkaException, TopicPartition

from producers.topics import kafka_config
from schemas.codec import Codec
from spanfold.cli.visible import Partition
from spanfold.errors import LogUnavailable, PoisonRecord
from spanfold.settings import Settings
from spanfold.topics import TRACES

TIMEOUT_S: Final = 60.0
ANSWER_S: Final = 10.0


def ends_of_log(settings: Settings) -> dict[Partition, int]:
    """The next offset of each partition of the trace topic. LogUnavailable when Kafka doesn't answer."""
    consumer = _consumer(settings)
    try:
        return {
            (TRACES.name, each.partition): consumer.get_watermark_offsets(each, timeout=ANSWER_S)[1]
            for each in _partitions(consumer, settings)
        }
    except KafkaException as error:
        raise LogUnavailable(f"Kafka at {settings.kafka_bootstrap} did not answer: {error.args[0].str()}") from error
    finally:
        consumer.close()


def records_between(
    settings: Settings, starts: dict[Partition, int], ends: dict[Partition, int], tag: str, value: str
) -> Counter[str]:
    """How many records of each event type lie there whose tags have this value. LogUnavailable after TIMEOUT_S."""
    codec, found = Codec(), Counter[str]()
    left = {partition: end for (_, partition), end in ends.items() if end > starts.get((TRACES.name, partition), 0)}
    consumer = _consumer(settings)
    topic = TRACES.on_broker(settings.topic_prefix)
    consumer.assign([TopicPartition(topic, each, starts.get((TRACES.name, each), 0)) for each in left])
    deadline = time.monotonic() + TIMEOUT_S
    while left:
        if time.monotonic() > deadline:
            raise LogUnavailable(f"{topic} could not be read within {TIMEOUT_S:g} s")
        for message in consumer.consume(5000, 0.5):
            with suppress(PoisonRecord):  # somebody else's
                event_type, fields = codec.decode(message.value())
                found[event_type] += fields["tags"].get(tag) == value
            if (message.offset() or 0) + 1 >= left.get(message.partition() or 0, 1 << 62):
                del left[message.partition() or 0]
    consumer.close()
    return found


def _consumer(settings: Settings) -> Consumer:
    own = {"group.id": "spanfold-demo", "enable.auto.commit": False, "auto.offset.reset": "earliest"}
    return Consumer(kafka_config(settings) | own)


def _partitions(consumer: Consumer, settings: Settings) -> list[TopicPartition]:
    topic = TRACES.on_broker(settings.topic_prefix)
    known = consumer.list_topics(topic, timeout=ANSWER_S).topics[topic].partitions
    return [TopicPartition(topic, each) for each in known]
