"""`spanfold tail`: the records of a topic, decoded, as they come."""

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Final

import orjson
import typer
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from spanfold.cli.output import jsonable
from spanfold.cli.stack import REQUEST_TIMEOUT_S, Home, chosen_settings, running_settings, sigterm_interrupts
from spanfold.kafka.client import kafka_config
from spanfold.kafka.log_ends import bounds_of
from spanfold.language.errors import InvalidInput, LogUnavailable, Misconfigured, PoisonRecord
from spanfold.language.ids import id_text
from spanfold.language.json_values import time_text
from spanfold.language.records import EVENT_TYPE
from spanfold.language.settings import Settings
from spanfold.language.topics import installed_topics
from spanfold.schemas.catalogue import committed
from spanfold.schemas.codec import Codec

POLL_S: Final = 0.2
HEX_BYTES: Final = 64
"""So much of a value that can't be decoded is shown."""

Row = dict[str, Any]
Place = Callable[[int, int], int]
"""From a partition's first offset and its end: where to begin."""


def tail(
    topic: Annotated[str, typer.Argument(help="traces or spanfold.traces, metrics, logs, …")],
    begin: Annotated[
        str, typer.Option("--from", metavar="beginning|end|OFFSET", help="Where to start in each partition.")
    ] = "end",
    partition: Annotated[int | None, typer.Option(min=0, help="Only this partition.", show_default=False)] = None,
    event_type: Annotated[str | None, typer.Option("--type", help="Only this event type.", show_default=False)] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Stop after this many records.", show_default=False)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs, one object per line.")] = False,
    home: Home = None,
) -> None:
    """Show the records of a topic, decoded, as they arrive.

    Each record is one line: log time, partition:offset, key, event type, fields. A record that can't be decoded is shown
    with the reason and the start of its value in hexadecimal. Records of aborted transactions are not shown. Runs until
    Ctrl-C, outside any consumer group, so it takes nothing from the workers.

    Example: spanfold tail traces --from beginning --type TraceFailed --limit 10
    """
    settings = running_settings(chosen_settings(home))
    name, place = _name_on_broker(topic, settings), _place(begin)
    consumer = _consumer(settings)
    try:
        with sigterm_interrupts():
            consumer.assign(_positions(consumer, name, partition, place, settings))
            _show(consumer, event_type, limit, _json_line if as_json else _line)
    except KeyboardInterrupt:
        pass
    except BrokenPipeError:  # who reads has seen enough; nothing may be flushed to it at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
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
    found = consumer.list_topics(name, timeout=REQUEST_TIMEOUT_S).topics[name]
    if found.error is not None:
        if found.error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            raise Misconfigured(
                f"Kafka at {settings.kafka_bootstrap} does not have the topic {name}: run `spanfold migrate`"
            )
        raise KafkaException(found.error)
    if partition is not None and partition not in found.partitions:
        raise InvalidInput(f"{name} has no partition {partition}, only 0 to {len(found.partitions) - 1}")
    wanted = sorted(found.partitions) if partition is None else [partition]
    return [TopicPartition(name, each, place(*bounds_of(consumer, name, each))) for each in wanted]


def _show(consumer: Consumer, event_type: str | None, limit: int | None, line: Callable[[Row], str]) -> None:
    shown = 0
    for row in _rows(consumer):
        if event_type in (None, row["event_type"]):
            sys.stdout.write(line(row) + "\n")
            sys.stdout.flush()
            shown += 1
        if shown == limit:
            return


def _rows(consumer: Consumer) -> Iterator[Row]:
    codec = Codec()
    while True:
        message = consumer.poll(POLL_S)
        if message is None:
            continue
        if (error := message.error()) is None:
            yield _row(message, codec)
        elif error.fatal() or not error.retriable():
            raise KafkaException(error)


def _row(message: Message, codec: Codec) -> Row:
    """The record; what isn't text in its key and headers is shown as Python writes bytes."""
    value, key = message.value(), message.key()
    headers = {name: _text(each) for name, each in dict(message.headers() or ()).items()}
    row: Row = {
        "time": time_text(message.timestamp()[1] * 1000),
        "partition": message.partition(),
        "offset": message.offset(),
        "key": _text(key),
        "event_type": headers.get(EVENT_TYPE),
    }
    try:
        row["event_type"], fields = codec.decode(value)
        row["fields"] = _readable(committed().latest(str(row["event_type"])).load(), fields)
    except PoisonRecord as poison:
        beginning = (value or b"")[:HEX_BYTES].hex(" ")
        row |= {"reason": poison.reason, "detail": poison.detail, "bytes": len(value or b""), "value": beginning}
    return row | {"headers": headers}


def _text(raw: Any) -> str | None:
    if raw is None:
        return None
    try:
        return raw.decode() if isinstance(raw, bytes) else str(raw)
    except UnicodeDecodeError:
        return repr(raw)


def _readable(schema: Any, value: Any) -> Any:
    """The value as people write it, by its Avro schema: times in RFC 3339, ids with dashes."""
    match schema:
        case list():  # a union: of null and one more, or of plain values
            return None if value is None else _readable(next(each for each in schema if each != "null"), value)
        case {"type": "record", "fields": fields}:
            return {field["name"]: _readable(field["type"], value[field["name"]]) for field in fields}
        case {"type": "array", "items": items}:
            return [_readable(items, each) for each in value]
        case {"logicalType": "timestamp-micros"}:
            return time_text(value)
        case {"logicalType": "uuid"} if isinstance(value, bytes):
            return id_text(value)
    return value


def _json_line(row: Row) -> str:
    return orjson.dumps(row, default=jsonable, option=orjson.OPT_NON_STR_KEYS).decode()


def _line(row: Row) -> str:
    """One line, without what it says elsewhere; times of day are UTC."""
    place = f"{row['partition']}:{row['offset']}"
    words = [str(row["time"]), place, _shown(row["key"]), row["event_type"] or "?"]
    if "reason" in row:
        return " ".join([*words, f"! {row['reason']}: {row['detail']}; {row['bytes']} bytes: {row['value']}"])
    return " ".join([*words, *_fields(row["fields"], str(row["key"]))])


def _fields(fields: Mapping[str, Any], key: str) -> Iterator[str]:
    for name, value in fields.items():
        if name == "event_id" or (name == "aggregate_id" and value == key) or value in (None, {}, []):
            continue
        yield f"{name}={_shown(value)}"


def _shown(value: Any) -> str:
    """A word as it is; anything else as JSON, so that a line stays a line."""
    if isinstance(value, str) and value.isprintable() and value and not set(value) & set(' "='):
        return value
    return orjson.dumps(value, default=jsonable, option=orjson.OPT_NON_STR_KEYS).decode()
