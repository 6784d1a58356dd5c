"""Parses a record batch while it is decompressed, in bounded memory: parts of records beyond a limit are hashed and counted, and
their neighbours are whole.

aiokafka's parser, which all other batches go through, needs the decompressed batch at once and makes objects of all its records.
"""

import hashlib
from collections.abc import Generator, Iterator
from typing import Final, NamedTuple

from aiokafka.errors import CorruptRecordException

from spanfold.language.records import MAX_HEADERS, MAX_HEADERS_BYTES
from spanfold.projections.commit.cut import HEAD_BYTES, CutHeaders, CutKey, CutValue, RecordHeaders, Value
from spanfold.stream_processors.fetching.batch_header import BatchHeader
from spanfold.stream_processors.fetching.decompression import PIECE_BYTES, pieces

SLICE_BYTES: Final = 64 * 1024 * 1024
"""After so many bytes the parser pauses, so that the event loop, and with it the consumer's heartbeat, gets its turn."""

_VARINT_BYTES: Final = 10


class StreamedRecord(NamedTuple):
    """A record as aiokafka has it; what is too large of it is cut. `timestamp` is in ms since 1970 UTC."""

    offset: int
    timestamp: int
    key: bytes | None
    value: Value
    headers: RecordHeaders


def streamed(header: BatchHeader, compressed: memoryview, max_value_bytes: int) -> Iterator[StreamedRecord | None]:
    """The batch's records, and now and then None: call again. `compressed` is what follows the batch's header. Values beyond
    `max_value_bytes` are cut, and keys and headers beyond what a record may have. CorruptRecordException for bytes that are no
    records.
    """
    return _Parser(header, pieces(header.codec, compressed), max_value_bytes).records()


class _Parser:
    def __init__(self, header: BatchHeader, plain: Iterator[bytes], max_value_bytes: int) -> None:
        self._header = header
        self._plain = plain
        self._max_value_bytes = max_value_bytes
        self._buffer, self._at = b"", 0
        self._before = 0
        self._paused_at = 0

    @property
    def _position(self) -> int:
        """Bytes of the decompressed batch that are behind."""
        return self._before + self._at

    def records(self) -> Iterator[StreamedRecord | None]:
        for _ in range(self._header.records):
            yield from self._record()
            if self._is_time_to_pause():
                yield None
        if self._has(1):
            raise CorruptRecordException("bytes after the last record of a batch")

    def _record(self) -> Iterator[StreamedRecord | None]:
        length = self._varint()
        end = self._position + length
        self._take(1)  # attributes, which are unused
        timestamp, offset = self._varint(), self._varint()
        key = yield from self._nullable(HEAD_BYTES)
        value = yield from self._nullable(self._max_value_bytes)
        headers = yield from self._headers(end)
        if self._position != end:
            raise CorruptRecordException(f"a record of {length} bytes ends elsewhere")
        yield StreamedRecord(
            self._header.base_offset + offset,
            self._header.log_append_time_ms or self._header.first_timestamp_ms + timestamp,
            CutKey.of(key) if isinstance(key, CutValue) else key,
            value,
            headers,
        )

    def _nullable(self, limit: int) -> Generator[None, None, Value]:
        length = self._varint()
        if length < 0:
            return None
        if length <= limit:
            return self._take(length)
        return (yield from self._cut(length))

    def _headers(self, end: int) -> Generator[None, None, RecordHeaders]:
        number, begin = self._varint(), self._position
        if number < 0:
            raise CorruptRecordException(f"{number} headers")
        headers: list[tuple[str, bytes | None]] = []
        hashed, left = hashlib.sha256(), MAX_HEADERS_BYTES
        while len(headers) < number <= MAX_HEADERS:
            name_length = self._varint(hashed)
            if (left := left - name_length) < 0:
                break
            name = self._take(name_length, hashed)
            value_length = self._varint(hashed)
            if (left := left - max(value_length, 0)) < 0:
                break
            value = None if value_length < 0 else self._take(value_length, hashed)
            headers.append((name.decode("utf-8", "surrogateescape"), value))
        else:
            if number <= MAX_HEADERS:
                return headers
        yield from self._skip(end - self._position, hashed)
        return CutHeaders.of(number, self._position - begin, hashed.digest())

    def _cut(self, length: int) -> Generator[None, None, CutValue]:
        hashed, head = hashlib.sha256(), self._take(HEAD_BYTES)
        hashed.update(head)
        yield from self._skip(length - len(head), hashed)
        return CutValue(length, hashed.digest(), head)

    def _skip(self, length: int, hashed: "hashlib._Hash") -> Iterator[None]:
        if length < 0:
            raise CorruptRecordException("a record's headers end behind it")
        while length > 0:
            taken = self._take(min(length, PIECE_BYTES), hashed)
            length -= len(taken)
            if self._is_time_to_pause():
                yield None

    def _is_time_to_pause(self) -> bool:
        if self._position - self._paused_at < SLICE_BYTES:
            return False
        self._paused_at = self._position
        return True

    def _varint(self, hashed: "hashlib._Hash | None" = None) -> int:
        """A zigzag varint."""
        self._has(_VARINT_BYTES)
        result = shift = 0
        begin = self._at
        for byte in self._buffer[begin : begin + _VARINT_BYTES]:
            result |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                self._at += shift // 7
                if hashed is not None:
                    hashed.update(self._buffer[begin : self._at])
                return (result >> 1) ^ -(result & 1)
        raise CorruptRecordException("a record's number does not end")

    def _take(self, length: int, hashed: "hashlib._Hash | None" = None) -> bytes:
        if not self._has(length):
            raise CorruptRecordException("a record ends behind its batch, or has a length below 0")
        taken = self._buffer[self._at : self._at + length]
        self._at += length
        if hashed is not None:
            hashed.update(taken)
        return taken

    def _has(self, length: int) -> bool:
        """Whether there are so many more bytes; then they are in the buffer."""
        missing = length - (len(self._buffer) - self._at)
        if missing > 0:
            parts = [self._buffer[self._at :]]
            while missing > 0 and (piece := next(self._plain, None)) is not None:
                parts.append(piece)
                missing -= len(piece)
            self._before += self._at
            self._buffer, self._at = b"".join(parts), 0
        return missing <= 0 <= length
