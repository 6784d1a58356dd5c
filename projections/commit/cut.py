"""What stands for the parts of a record that are too large to keep: how large they are, their hash, and how they begin.

Readers of the log make these (stream_processors/fetching/streamed_batch.py): bytes beyond a limit are hashed and counted as they
are decompressed, and never in memory at once.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Self

from spanfold.language.errors import PoisonRecord
from spanfold.language.parking import ParkedReason
from spanfold.language.records import MAX_HEADERS, MAX_HEADERS_BYTES

HEAD_BYTES: Final = 1024
"""So much is kept of a value or a key that is cut."""


@dataclass(frozen=True, slots=True)
class CutValue:
    """A value of `size` bytes of which only the first ones are here."""

    size: int
    sha256: bytes
    head: bytes

    @classmethod
    def of(cls, value: bytes) -> Self:
        """The value, cut."""
        return cls(len(value), hashlib.sha256(value).digest(), value[:HEAD_BYTES])

    def __str__(self) -> str:
        return f"{self.size:,} bytes, SHA-256 {self.sha256.hex()}"


Value = bytes | CutValue | None


class CutKey(bytes):
    """The first bytes of a key of `size` bytes, more than any verdict accepts."""

    size: int
    sha256: bytes

    @classmethod
    def of(cls, key: CutValue) -> Self:
        """The key, of which these bytes are known."""
        cut = cls(key.head)
        cut.size, cut.sha256 = key.size, key.sha256
        return cut


class CutHeaders(tuple[tuple[str, bytes | None], ...]):
    """No headers, in place of more than a record may have: `number` of them, `size` bytes on the wire. Those are hashed."""

    number: int
    size: int
    sha256: bytes

    @classmethod
    def of(cls, number: int, size: int, sha256: bytes) -> Self:
        """In place of such headers."""
        cut = cls()
        cut.number, cut.size, cut.sha256 = number, size, sha256
        return cut

    def __str__(self) -> str:
        return f"{self.number:,} headers of {self.size:,} bytes on the wire, SHA-256 {self.sha256.hex()}"


RecordHeaders = Sequence[tuple[str, bytes | None]]


def within_limits(headers: RecordHeaders) -> RecordHeaders:
    """The headers; CutHeaders in their place when they are more than a record may have."""
    if isinstance(headers, CutHeaders) or (len(headers) <= MAX_HEADERS and headers_size(headers) <= MAX_HEADERS_BYTES):
        return headers
    digest, size = hashlib.sha256(), 0
    for name, value in headers:
        for part in (name.encode("utf-8", "surrogateescape"), value):
            wire = _varint(-1 if part is None else len(part)) + (part or b"")
            digest.update(wire)
            size += len(wire)
    return CutHeaders.of(len(headers), size, digest.digest())


def headers_size(headers: RecordHeaders) -> int:
    """Bytes of names and values."""
    return sum(len(name.encode("utf-8", "surrogateescape")) + len(value or b"") for name, value in headers)


def _varint(number: int) -> bytes:
    """A length as Kafka writes it."""
    left, out = (number << 1) ^ (number >> 63), bytearray()
    while left > 0x7F:
        out.append(left & 0x7F | 0x80)
        left >>= 7
    return bytes([*out, left])


def cut_key(key: bytes | None) -> bytes | None:
    """The key; its first bytes when it is longer than HEAD_BYTES."""
    if key is None or isinstance(key, CutKey) or len(key) <= HEAD_BYTES:
        return key
    return CutKey.of(CutValue.of(key))


def whole(value: Value) -> bytes | None:
    """The value. PoisonRecord when it is cut."""
    if isinstance(value, CutValue):
        detail = f"the value is larger than SPANFOLD_MAX_VALUE_BYTES: {value}; raise the setting, then retry"
        raise PoisonRecord(ParkedReason.TOO_LARGE, detail)
    return value


def any_cut(values: Iterable[Value]) -> bool:
    """Whether one of these values is cut."""
    return CutValue in set(map(type, values))


def heads(values: Sequence[Value]) -> Sequence[bytes | None]:
    """The values, and the first bytes of those that are cut."""
    if not any_cut(values):
        return values  # type: ignore[return-value]
    return [head(value) for value in values]


def head(value: Value) -> bytes | None:
    """The value, or its first bytes if it is cut."""
    return value.head if isinstance(value, CutValue) else value
