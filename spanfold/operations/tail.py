"""The records of a topic, decoded, as they arrive."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from spanfold.kafka.client import kafka_config
from spanfold.kafka.log_ends import bounds_of
from spanfold.language.documents import parsed_or_text
from spanfold.language.errors import InvalidInput, LogUnavailable, Misconfigured, PoisonRecord
from spanfold.language.ids import id_text
from spanfold.language.json_values import time_text
from spanfold.language.records import EVENT_TYPE
from spanfold.language.settings import Settings
from spanfold.language.topics import installed_topics
from spanfold.operations.installation import Installation
from spanfold.operations.worker_group import REQUEST_TIMEOUT_S
from spanfold.schemas.catalogue import committed
from spanfold.schemas.codec import Codec

POLL_S: Final = 0.2
HEX_BYTES: Final = 64
"""So much of a value that can't be decoded is kept."""

Place = Callable[[int, int], int]
"""From a partition's first offset and its end: where to begin."""


@dataclass(frozen=True, slots=True)
class Undecoded:
    """Why a value could not be decoded, how long it is, and how it begins, in hexadecimal."""

    reason: str
    detail: str
    bytes: int
    value: str


@dataclass(frozen=True, slots=True)
class TailedRecord:
    """A record. `time` is its log time in RFC 3339; key and headers that are no text are as Python writes bytes; `fields` are as
    people write them: times in RFC 3339, ids with dashes, documents as the JSON that they hold. Either `fields` or `undecoded` is
    None.
    """

    time: str | int
    partition: int
    offset: int
    key: str | None
    event_type: str | None
    fields: Mapping[str, Any] | None
    undecoded: Undecoded | None
    headers: Mapping[str, str | None]


def tail(
    installation: Installation,
    topic: str,
    *,
    begin: str = "end",
    partition: int | None = None,
    event_type: str | None = None,
) -> Iterator[TailedRecord]:
    """The records of a topic from `begin` (beginning, end or an offset) on, for ever, in no consumer group; those of aborted
    transactions are left out. InvalidInput, Misconfigured when Kafka lacks the topic, LogUnavailable.
    """
    settings = installation.settings
    name, place = _name_on_broker(topic, settings), _place(begin)
    consumer = _consumer(settings)
    try:
        consumer.assign(_positions(consumer, name, partition, place, settings))
        for record in _records(consumer):
            if event_type in (None, record.event_type):
                yield record
    except KafkaException as error:
        raise LogUnavailable(f"Kafka at {settings.kafka_bootstrap} did not answer: {error.args[0].str()}") from error
    finally:
        consumer.close()


def _name_on_broker(given: str, settings: Settings) -> str:
    for topic in installed_topics():
        if given in (topic.name, topic.short_name, topic.on_broker(settings.topic_prefix)):
            return topic.on_broker(settings.topic_prefix)
    raise InvalidInput(
        f"unknown topic {given!r}; expected one of {', '.join(topic.short_name for topic in installed_topics())}"
    )


def _place(begin: str) -> Place:
    match begin:
        case "beginning":
            return lambda low, high: low
        case "end":
            return lambda low, high: high
        case _ if begin.isdecimal():
            return lambda low, high: min(max(int(begin), low), high)
    raise InvalidInput(f"--from {begin}: expected beginning, end or an offset")


def _consumer(settings: Settings) -> Consumer:
    own = {
        "group.id": "spanfold-tail",  # librdkafka wants one; without subscribe and commit nobody hears of it
        "enable.auto.commit": False,
        "isolation.level": "read_committed",
        "auto.offset.reset": "earliest",
    }
    return Consumer({**kafka_config(settings), **own})


def _positions(
    consumer: Consumer, name: str, partition: int | None, place: Place, settings: Settings
) -> list[TopicPartition]:
    """Where to begin in each partition. Misconfigured when the topic isn't there, InvalidInput for the partition."""
    topic = consumer.list_topics(name, timeout=REQUEST_TIMEOUT_S).topics[name]
    if topic.error is not None:
        if topic.error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            raise Misconfigured(
                f"Kafka at {settings.kafka_bootstrap} does not have the topic {name}: run `spanfold migrate`"
            )
        raise KafkaException(topic.error)
    if partition is not None and partition not in topic.partitions:
        raise InvalidInput(f"{name} has no partition {partition}, only 0 to {len(topic.partitions) - 1}")
    chosen = sorted(topic.partitions) if partition is None else [partition]
    return [TopicPartition(name, number, place(*bounds_of(consumer, name, number))) for number in chosen]


def _records(consumer: Consumer) -> Iterator[TailedRecord]:
    codec = Codec()
    while True:
        message = consumer.poll(POLL_S)
        if message is None:
            continue
        if (error := message.error()) is None:
            yield _record(message, codec)
        elif error.fatal() or not error.retriable():
            raise KafkaException(error)


def _record(message: Message, codec: Codec) -> TailedRecord:
    value = message.value() or b""
    headers = {name: _text(header) for name, header in dict(message.headers() or ()).items()}
    event_type, fields, undecoded = headers.get(EVENT_TYPE), None, None
    try:
        event_type, values = codec.decode(message.value())
        fields = _readable(committed().latest(event_type).load(), values)
    except PoisonRecord as poison:
        undecoded = Undecoded(poison.reason, poison.detail, len(value), value[:HEX_BYTES].hex(" "))
    return TailedRecord(
        time=time_text(message.timestamp()[1] * 1000),
        partition=int(message.partition() or 0),
        offset=int(message.offset() or 0),
        key=_text(message.key()),
        event_type=event_type,
        fields=fields,
        undecoded=undecoded,
        headers=headers,
    )


def _text(raw: Any) -> str | None:
    if raw is None:
        return None
    try:
        return raw.decode() if isinstance(raw, bytes) else str(raw)
    except UnicodeDecodeError:
        return repr(raw)


def _readable(schema: Any, value: Any) -> Any:
    """The value as people write it, by its Avro schema: times in RFC 3339, ids with dashes, documents as JSON."""
    match schema:
        case list():  # a union: of null and one more, or of plain values
            return None if value is None else _readable(next(kind for kind in schema if kind != "null"), value)
        case {"type": "record", "fields": fields}:
            return {field["name"]: _readable(field["type"], value[field["name"]]) for field in fields}
        case {"type": "array", "items": items}:
            return [_readable(items, item) for item in value]
        case {"json": _}:
            return parsed_or_text(value)
        case {"logicalType": "timestamp-micros"}:
            return time_text(value)
        case {"logicalType": "uuid"} if isinstance(value, bytes):
            return id_text(value)
    return value
