"""Bytes ⇄ event, in Confluent's wire format: magic byte 0, the schema id (4 bytes, big-endian), Avro.

fastavro reads schemas without their logical types: times stay plain longs (µs since 1970 UTC) and ids 16 bytes. Every released
version of a schema stays readable: a record with an older version is resolved to the latest one.

A string with the property `json` is a document (spanfold/language/documents.py). Documents of events are read as their text,
those of snapshots as their values; both are written from values.
"""

import struct
from collections.abc import Callable, Mapping
from io import BytesIO
from typing import Any, Final

from fastavro import parse_schema, schemaless_reader, schemaless_writer
from fastavro.validation import ValidationError, validate

from spanfold.language.documents import Shape, canonical, parsed
from spanfold.language.errors import InvalidInput, PoisonRecord
from spanfold.language.parking import ParkedReason
from spanfold.schemas.catalogue import SchemaIds, committed

Fields = dict[str, Any]
"""A decoded event: its fields by name, times in µs since 1970 UTC, event_id as 16 bytes, documents as their text."""

Convert = Callable[[Any, str], Any]
"""Takes a value and its place in the event; returns the value with its documents converted."""

Reader = tuple[str, Any, Any]
"""Event type, the writer's schema, and the latest schema if that is a different one."""

Writer = tuple[bytes, Any, list[str], Convert | None]
"""The frame, the schema, the fields in which integers may become doubles, and what turns documents into text."""

MAGIC: Final = 0
_FRAME: Final = struct.Struct(">bI")
FRAME_BYTES: Final = _FRAME.size


def plain(schema: Any) -> Any:
    """The schema without logical types and docs: longs stay longs, and fixed stays bytes."""
    if isinstance(schema, dict):
        return {key: plain(value) for key, value in schema.items() if key not in ("logicalType", "doc")}
    if isinstance(schema, list):
        return [plain(item) for item in schema]
    return schema


def is_document(schema: Any) -> bool:
    """Whether values of this schema are the text of a document."""
    return isinstance(schema, dict) and "json" in schema


def _converter(schema: Any, convert: Callable[[Any, Shape, str], Any]) -> Convert | None:
    """What converts values of a schema: documents as `convert` says of one, its shape and its place. None if it has none."""
    if is_document(schema):
        shape = schema["json"]
        return lambda value, where: convert(value, shape, where)
    if isinstance(schema, list):
        branch = next(filter(None, (_converter(branch, convert) for branch in schema)), None)
        return branch and (lambda value, where: None if value is None else branch(value, where))
    kind = schema["type"] if isinstance(schema, dict) else None
    if kind == "array":
        item = _converter(schema["items"], convert)
        return item and (lambda value, where: [item(one, f"{where}[{index}]") for index, one in enumerate(value)])
    return _record_converter(schema, convert) if kind == "record" else None


def _record_converter(schema: Any, convert: Callable[[Any, Shape, str], Any]) -> Convert | None:
    converters = {field["name"]: _converter(field["type"], convert) for field in schema["fields"]}
    own = [(name, converter) for name, converter in converters.items() if converter]

    def convert_record(value: Any, where: str) -> Any:
        fields = dict(value)
        for name, converter in own:
            if name in fields:
                fields[name] = converter(fields[name], f"{where}.{name}" if where else name)
        return fields

    return convert_record if own else None


class Codec:
    """Encodes events with their latest schema, and decodes records of every released schema."""

    def __init__(self, ids: SchemaIds | None = None) -> None:
        self._ids = ids or committed()
        self._readers: dict[bytes, Reader] = {}
        self._snapshot_readers: dict[bytes, Reader] = {}
        self._writers: dict[str, Writer] = {}
        self._parsers: dict[str, Convert | None] = {}

    def encode(self, event_type: str, fields: Mapping[str, Any]) -> bytes:
        """The record's value. InvalidInput names the field that does not fit the schema."""
        frame, schema, may_round, as_text = self._writers.get(event_type) or self._add_writer(event_type)
        for name in may_round:
            if (where := _beyond_64_bits(fields.get(name))) is not None:
                raise InvalidInput(f"{event_type}: {name}{where}: publish it as text")
        if as_text:
            fields = _with_texts(event_type, as_text, fields)
        out = BytesIO()
        out.write(frame)
        try:
            schemaless_writer(out, schema, fields)
        except (ValueError, TypeError, KeyError, OverflowError, struct.error, AttributeError) as error:
            raise InvalidInput(f"{event_type}: {_what_is_wrong(schema, fields) or error}") from error
        return out.getvalue()

    def decode(self, value: bytes | None) -> tuple[str, Fields]:
        """The event type and its fields. PoisonRecord says why the value can't be read."""
        if value is None:
            raise PoisonRecord(ParkedReason.UNREADABLE, "the value is null")
        # the key is the whole frame: one lookup checks the magic byte and gets the schema
        return self._decode(value, self._readers.get(value[:FRAME_BYTES]) or self._add_reader(value))

    def decode_snapshot(self, value: bytes) -> tuple[str, Fields]:
        """The same for an aggregate's state: the name of its Avro record, and its fields."""
        known = self._snapshot_readers.get(value[:FRAME_BYTES])
        record_type, fields = self._decode(value, known or self._add_reader(value, snapshots=True))
        return record_type, self.with_values(record_type, fields)

    def with_texts(self, event_type: str, fields: Mapping[str, Any]) -> Fields:
        """The fields of an event as they are decoded, with the text of its documents. InvalidInput names what can't be one."""
        as_text = (self._writers.get(event_type) or self._add_writer(event_type))[3]
        return _with_texts(event_type, as_text, fields) if as_text else dict(fields)

    def with_values(self, record_type: str, fields: Fields) -> Fields:
        """The decoded fields with the values of their documents. PoisonRecord when one is not JSON."""
        if record_type not in self._parsers:
            schema = self._ids.latest(record_type).load()
            self._parsers[record_type] = _converter(schema, lambda text, shape, where: parsed(text))
        parse = self._parsers[record_type]
        try:
            return parse(fields, "") if parse else fields
        except ValueError as error:
            raise PoisonRecord(ParkedReason.INVALID, f"not JSON: {error}") from error

    def _decode(self, value: bytes, known: Reader) -> tuple[str, Fields]:
        event_type, writer, reader = known
        body = BytesIO(value)
        body.seek(FRAME_BYTES)
        try:
            fields: Fields = schemaless_reader(body, writer, reader)  # type: ignore[assignment]
        except Exception as error:  # on corrupt bytes fastavro may raise anything
            raise PoisonRecord(ParkedReason.UNREADABLE, f"not a {event_type}: {error!r}") from error
        if body.tell() != len(value):
            raise PoisonRecord(
                ParkedReason.UNREADABLE, f"{len(value) - body.tell()} bytes after the end of {event_type}"
            )
        return event_type, fields

    def _add_writer(self, event_type: str) -> Writer:
        try:
            entry = self._ids.latest(event_type)
        except KeyError:
            raise InvalidInput(f"unknown event type {event_type!r}") from None
        schema = plain(entry.load())
        may_round = [field["name"] for field in schema["fields"] if _may_round(field["type"])]
        writer = (_FRAME.pack(MAGIC, entry.id), parse_schema(schema), may_round, _converter(schema, canonical))
        self._writers[event_type] = writer
        return writer

    def _add_reader(self, value: bytes, *, snapshots: bool = False) -> Reader:
        frame = value[:FRAME_BYTES]
        if len(frame) < FRAME_BYTES or frame[0] != MAGIC:
            raise PoisonRecord(ParkedReason.UNREADABLE, "not framed: expected magic byte 0 and a 4-byte schema id")
        schema_id = int.from_bytes(frame[1:], "big")
        entry = self._ids.by_id(schema_id)
        if entry is None:
            raise PoisonRecord(
                ParkedReason.UNKNOWN_SCHEMA, f"schema id {schema_id} is unknown here: upgrade, then retry"
            )
        if _is_snapshot(entry.event_type) is not snapshots:
            raise PoisonRecord(
                ParkedReason.UNREADABLE, f"a {entry.event_type} is not {'a snapshot' if snapshots else 'an event'}"
            )
        latest = self._ids.latest(entry.event_type)
        resolve = None if latest.id == entry.id else parse_schema(plain(latest.load()))
        reader = (entry.event_type, parse_schema(plain(entry.load())), resolve)
        (self._snapshot_readers if snapshots else self._readers)[frame] = reader
        return reader


def _with_texts(event_type: str, as_text: Convert, fields: Mapping[str, Any]) -> Fields:
    try:
        converted: Fields = as_text(fields, "")
    except InvalidInput as error:
        raise InvalidInput(f"{event_type}: {error}") from error
    return converted


def _is_snapshot(record_type: str) -> bool:
    """Whether the Avro record is for states of aggregates."""
    from spanfold.application.aggregates import snapshot_types  # publishing must not import aggregates

    return record_type in snapshot_types()


_NO_INTEGERS: Final = frozenset({str, bytes, float, bool, type(None)})
_WHOLE: Final = frozenset({"null", "boolean", "int", "long", "string", "bytes", "float"})
"""Avro types that store an integer exactly, or refuse it."""


def _may_round(schema: Any) -> bool:
    """Whether a value of this schema may contain an integer that becomes a double."""
    if isinstance(schema, list):
        return any(map(_may_round, schema))
    if isinstance(schema, str):
        return schema not in _WHOLE  # a double, or a name that may stand for any type
    match schema["type"]:
        case "map":
            return _may_round(schema["values"])
        case "array":
            return _may_round(schema["items"])
        case "record":
            return any(_may_round(field["type"]) for field in schema["fields"])
        case "fixed" | "enum":
            return False
        case inner:
            return _may_round(inner)


def _beyond_64_bits(value: Any) -> str | None:
    """Where in the value the first integer beyond 64 bits is: fastavro would turn it into a double, which is another number."""
    kind = type(value)
    if kind in _NO_INTEGERS:
        return None
    if isinstance(value, int):
        return None if -0x8000000000000000 <= value <= 0x7FFFFFFFFFFFFFFF else f" is {value}, which is beyond 64 bits"
    if isinstance(value, list | tuple):
        for index, item in enumerate(value):
            if type(item) not in _NO_INTEGERS and (where := _beyond_64_bits(item)) is not None:
                return f"[{index}]{where}"
    elif kind is dict or isinstance(value, Mapping):
        for name, item in value.items():
            if type(item) not in _NO_INTEGERS and (where := _beyond_64_bits(item)) is not None:
                return f"[{name!r}]{where}"
    return None


def _what_is_wrong(schema: Any, fields: Mapping[str, Any]) -> str:
    try:
        validate(dict(fields), schema, strict=True)
    except ValidationError as error:
        return "; ".join(map(str, error.errors))
    return ""
