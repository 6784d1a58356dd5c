"""Bodies of OTLP/HTTP ⇄ messages: protobuf or JSON, as they are or with gzip, never larger than MAX_BODY_BYTES."""

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message

from spanfold.language.errors import InvalidInput
from spanfold.producers.otlp.json_bodies import read_json

MAX_BODY_BYTES: Final = 20 * 1024 * 1024
"""Of a request, decompressed: what OpenTelemetry's Collector takes by default."""

AnyMessage = TypeVar("AnyMessage", bound=Message)


class UnknownMedia(InvalidInput):
    """A Content-Type or Content-Encoding that OTLP/HTTP doesn't have."""


class BodyTooLarge(InvalidInput):
    """More than MAX_BODY_BYTES."""

    def __init__(self) -> None:
        super().__init__(f"the body is larger than {MAX_BODY_BYTES:,} bytes: send fewer spans a request")


@dataclass(frozen=True, slots=True)
class Encoding:
    """How messages are written. `read` fills the message, and raises InvalidInput."""

    content_type: str
    read: Callable[[bytes, Message], None]
    write: Callable[[Message], bytes]


def encoding_of(content_type: str) -> Encoding:
    """The encoding that a Content-Type names, whatever its parameters. UnknownMedia for another one."""
    name = content_type.partition(";")[0].strip().lower()
    if name not in _ENCODINGS:
        raise UnknownMedia(f"Content-Type {content_type!r} is not one of {', '.join(_ENCODINGS)}")
    return _ENCODINGS[name]


def decompressed(body: bytes, content_encoding: str) -> bytes:
    """The body without its compression. UnknownMedia, BodyTooLarge, or InvalidInput when it is not gzip after all."""
    name = content_encoding.strip().lower()
    if name in ("", "identity"):
        return body
    if name != "gzip":
        raise UnknownMedia(f"Content-Encoding {content_encoding!r} is not gzip")
    inflater = zlib.decompressobj(wbits=31)  # gzip's header and checksum
    try:
        found = inflater.decompress(body, MAX_BODY_BYTES + 1)
    except zlib.error as error:
        raise InvalidInput(f"the body is not gzip: {error}") from error
    if len(found) > MAX_BODY_BYTES:
        raise BodyTooLarge
    if not inflater.eof or inflater.unused_data:
        raise InvalidInput(
            "the body is not gzip: it is cut short" if not inflater.eof else "bytes follow the gzip body"
        )
    return found


def message_of(kind: type[AnyMessage], body: bytes, encoding: Encoding, content_encoding: str) -> AnyMessage:
    """The message that the body holds. UnknownMedia, BodyTooLarge, or InvalidInput that says what is malformed."""
    message = kind()
    encoding.read(decompressed(body, content_encoding), message)
    return message


def _read_protobuf(body: bytes, message: Message) -> None:
    try:
        message.ParseFromString(body)
    except DecodeError as error:
        raise InvalidInput(f"the body is not a {message.DESCRIPTOR.name} in protobuf: {error}") from error


PROTOBUF: Final = Encoding("application/x-protobuf", _read_protobuf, lambda message: message.SerializeToString())
JSON: Final = Encoding(
    "application/json", read_json, lambda message: json_format.MessageToJson(message, indent=None).encode()
)
_ENCODINGS: Final = {each.content_type: each for each in (PROTOBUF, JSON)}
