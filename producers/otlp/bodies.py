"""Bodies of OTLP/HTTP ⇄ messages: protobuf or JSON, plain or with gzip, never larger than MAX_EXPORT_BYTES."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message

from spanfold.http.body_limits import MAX_EXPORT_BYTES, MalformedBody, UnsupportedMediaType, decompressed
from spanfold.producers.otlp.json_bodies import read_json

AnyMessage = TypeVar("AnyMessage", bound=Message)


@dataclass(frozen=True, slots=True)
class Encoding:
    """How messages are written. `read` fills the message; it raises MalformedBody."""

    content_type: str
    read: Callable[[bytes, Message], None]
    write: Callable[[Message], bytes]


def encoding_of(content_type: str) -> Encoding:
    """The encoding that a Content-Type names, whatever its parameters. UnsupportedMediaType for another one."""
    name = content_type.partition(";")[0].strip().lower()
    if name not in _ENCODINGS:
        raise UnsupportedMediaType(f"Content-Type {content_type!r} is not one of {', '.join(_ENCODINGS)}")
    return _ENCODINGS[name]


def message_of(kind: type[AnyMessage], body: bytes, encoding: Encoding, content_encoding: str) -> AnyMessage:
    """The message that the body holds. UnsupportedMediaType, BodyTooLarge, or MalformedBody."""
    message = kind()
    encoding.read(decompressed(body, content_encoding, MAX_EXPORT_BYTES), message)
    return message


def _read_protobuf(body: bytes, message: Message) -> None:
    try:
        message.ParseFromString(body)
    except DecodeError as error:
        raise MalformedBody(f"the body is not a {message.DESCRIPTOR.name} in protobuf: {error}") from error


PROTOBUF: Final = Encoding("application/x-protobuf", _read_protobuf, lambda message: message.SerializeToString())
JSON: Final = Encoding(
    "application/json", read_json, lambda message: json_format.MessageToJson(message, indent=None).encode()
)
_ENCODINGS: Final = {encoding.content_type: encoding for encoding in (PROTOBUF, JSON)}
