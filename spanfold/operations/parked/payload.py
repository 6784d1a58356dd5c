"""What a parked record carries: its key, headers and bytes, as far as they can be decoded."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Any, Final

from spanfold.language.documents import parsed_or_text
from spanfold.language.errors import PoisonRecord
from spanfold.language.ids import id_text
from spanfold.operations.installation import Installation
from spanfold.operations.parked.records import ParkedRecord, at_positions, reader
from spanfold.operations.positions import position_of
from spanfold.schemas.catalogue import committed
from spanfold.schemas.codec import FRAME_BYTES, MAGIC, Codec, Fields, is_document


@dataclass(frozen=True, slots=True)
class Decoded:
    """What a payload says. `schema_id` and `event_type` are those of its schema, None where it has none or it is unknown;
    `fields` are as Avro has them (times in µs since 1970 UTC, numbers that JSON lacks as text), documents as the JSON that they
    hold; None where they can't be read: then `error` says why.
    """

    schema_id: int | None
    event_type: str | None
    fields: Mapping[str, Any] | None
    error: str | None


@dataclass(frozen=True, slots=True)
class ParkedBytes:
    """A parked record with what it carries: all None once it was erased, `payload` also where the record's value is null. Where
    `record.value_bytes` is set, `payload` is only the value's beginning.
    """

    record: ParkedRecord
    key: bytes | None
    headers: Sequence[Sequence[Any]] | None
    payload: bytes | None
    decoded: Decoded


def show_parked(installation: Installation, position: str) -> ParkedBytes:
    """The record that was parked at this position, such as spanfold.traces/0@42. NotFound when none was."""
    at = position_of(position, installation.settings.topic_prefix)
    with reader(installation.dsn) as connection:
        (record,) = at_positions(connection, [at])
        row = connection.execute(BYTES.encode(), astuple(at)).fetchone()
    key, headers, payload = row or (None, None, None)
    return ParkedBytes(record, key, headers, payload, decoded(payload, is_cut=record.value_bytes is not None))


def decoded(payload: bytes | None, *, is_cut: bool = False) -> Decoded:
    """What these bytes say, as far as they can be read; of a value that is cut only its frame can."""
    schema_id, event_type = _schema(payload)
    if is_cut:
        return Decoded(
            schema_id, event_type, None, "only the beginning of the value is kept here; a retry fetches the rest"
        )
    try:
        event_type, values = Codec().decode(payload)
    except PoisonRecord as poison:
        return Decoded(schema_id, event_type, None, str(poison))
    return Decoded(schema_id, event_type, _readable(event_type, values), None)


def _schema(payload: bytes | None) -> tuple[int | None, str | None]:
    """What the frame says, if there is one."""
    if payload is None or len(payload) < FRAME_BYTES or payload[0] != MAGIC:
        return None, None
    schema_id = int.from_bytes(payload[1:FRAME_BYTES], "big")
    entry = committed().by_id(schema_id)
    return schema_id, entry.event_type if entry else None


def _readable(event_type: str, values: Fields) -> dict[str, Any]:
    documents = {
        field["name"] for field in committed().latest(event_type).load()["fields"] if is_document(field["type"])
    }
    return {
        name: parsed_or_text(value) if name in documents else _jsonable(name, value) for name, value in values.items()
    }


def _jsonable(name: str, value: Any) -> Any:
    """The value for JSON: the id as a UUID, bytes as hex, numbers that JSON lacks as the texts NaN, Infinity and -Infinity."""
    match value:
        case bytes():
            return id_text(value) if name == "event_id" else value.hex()
        case float() if not math.isfinite(value):
            return {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}[str(value)]
        case dict():
            return {key: _jsonable("", item) for key, item in value.items()}
        case list():
            return [_jsonable("", item) for item in value]
        case _:
            return value


BYTES: Final = """
SELECT key, headers, payload
  FROM spanfold.parked_records
 WHERE topic = %s AND partition = %s AND kafka_offset = %s
"""
