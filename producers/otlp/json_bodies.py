"""OTLP's JSON → messages. It is protobuf's JSON mapping, except that the ids of traces and spans are hexadecimal."""

import base64
import binascii
from collections.abc import Iterator
from typing import Any, Final

import orjson
from google.protobuf import json_format
from google.protobuf.message import Message

from spanfold.http.body_limits import MalformedBody

_IDS: Final = ("traceId", "spanId", "parentSpanId")


def read_json(body: bytes, message: Message) -> None:
    """Fill the message; unknown fields are ignored. MalformedBody says what is wrong."""
    try:
        document = orjson.loads(body)
        if not isinstance(document, dict):
            raise TypeError("it is not an object")
        for span in _objects([document], "resourceSpans", "scopeSpans", "spans"):
            _hex_to_base64(span)
            for link in _objects([span], "links"):
                _hex_to_base64(link)
        json_format.ParseDict(document, message, ignore_unknown_fields=True)
    # a document of another shape makes ParseDict raise any of these
    except (json_format.ParseError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise MalformedBody(f"the body is not a {message.DESCRIPTOR.name} in OTLP's JSON: {error}") from error


def _objects(nodes: list[Any], *path: str) -> Iterator[dict[str, Any]]:
    """The objects in the lists at the end of the path."""
    if not path:
        yield from (node for node in nodes if isinstance(node, dict))
        return
    for node in nodes:
        children = node.get(path[0]) if isinstance(node, dict) else None
        if isinstance(children, list):
            yield from _objects(children, *path[1:])


def _hex_to_base64(node: dict[str, Any]) -> None:
    for name in _IDS:
        value = node.get(name)
        if value and isinstance(value, str):
            try:
                node[name] = base64.b64encode(binascii.unhexlify(value)).decode()
            except ValueError as error:
                raise MalformedBody(f"{name} {value[:64]!r} is not hexadecimal") from error
