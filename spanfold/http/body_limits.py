"""Request bodies, read within limits: of size, also when decompressed, and of the time in which they have to arrive."""

import asyncio
import zlib
from collections.abc import AsyncIterable
from http import HTTPStatus
from typing import Any, Final

import orjson

from spanfold.language.errors import InvalidInput

MAX_COMMAND_BYTES: Final = 1 << 20
"""Of a command, a query or the fields of an operation."""

MAX_EXPORT_BYTES: Final = 20 * 1024 * 1024
"""Of an OTLP request, decompressed: the default of OpenTelemetry's Collector."""

BODY_TIMEOUT_S: Final = 10.0
"""How long a body may take to arrive: the time that OpenTelemetry's SDKs give a request."""

_DRAINED: Final = 4
"""Up to so many times the limit is read and discarded: many clients read the answer only when they have sent their body."""


class MalformedBody(InvalidInput):
    """The body can't be parsed or decompressed."""

    http_status = HTTPStatus.BAD_REQUEST


class BodyTooLarge(InvalidInput):
    """The body exceeds its limit."""

    http_status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE

    def __init__(self, limit: int) -> None:
        super().__init__(f"the body is larger than {limit:,} bytes: send less in one request")


class BodyTooSlow(InvalidInput):
    """The body did not arrive in time."""

    http_status = HTTPStatus.REQUEST_TIMEOUT


class UnsupportedMediaType(InvalidInput):
    """A Content-Type or Content-Encoding that is not accepted here."""

    http_status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE


async def read_body(chunks: AsyncIterable[bytes], limit: int) -> bytes:
    """The body, at most `limit` bytes. BodyTooLarge, or BodyTooSlow after BODY_TIMEOUT_S."""
    kept, size = [], 0
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            async for chunk in chunks:
                size += len(chunk)
                if size <= limit:
                    kept.append(chunk)
                elif size > _DRAINED * limit:
                    break
    except TimeoutError:
        raise BodyTooSlow(f"the body did not arrive within {BODY_TIMEOUT_S:g} s") from None
    if size > limit:
        raise BodyTooLarge(limit)
    return b"".join(kept)


def decompressed(body: bytes, content_encoding: str, limit: int) -> bytes:
    """The body without its compression, at most `limit` bytes. UnsupportedMediaType for other encodings than gzip, BodyTooLarge,
    or MalformedBody when it is not gzip after all.
    """
    name = content_encoding.strip().lower()
    if name in ("", "identity"):
        return body
    if name != "gzip":
        raise UnsupportedMediaType(f"Content-Encoding {content_encoding!r} is not gzip")
    inflater = zlib.decompressobj(wbits=31)  # gzip's header and checksum
    try:
        inflated = inflater.decompress(body, limit + 1)
    except zlib.error as error:
        raise MalformedBody(f"the body is not gzip: {error}") from error
    if len(inflated) > limit:
        raise BodyTooLarge(limit)
    if not inflater.eof:
        raise MalformedBody("the body is not gzip: it is cut short")
    if inflater.unused_data:
        raise MalformedBody("bytes follow the gzip body")
    return inflated


async def json_object(chunks: AsyncIterable[bytes], limit: int = MAX_COMMAND_BYTES) -> dict[str, Any]:
    """The JSON object that the body holds. BodyTooLarge, BodyTooSlow, MalformedBody."""
    try:
        document = orjson.loads(await read_body(chunks, limit))
    except orjson.JSONDecodeError as error:
        raise MalformedBody(f"the body is no JSON: {error}") from error
    if not isinstance(document, dict):
        raise MalformedBody('the body is no JSON object: send an object such as {"query_type": "FindTraces"}')
    return document
