"""aiokafka's record batches, in bounded memory whatever they hold.

What a fetch brings is compressed, and Kafka bounds only that: a batch of 12 KB may hold a header of 270 MB, or a million records.
So a batch is decompressed here, up to SMALL_BYTES. If it ends before, as all ordinary batches do, it goes to aiokafka's parser
and costs what it cost before. A larger one, or one with more records or headers than memory should hold at once, is parsed as a
stream (streamed_batch.py) and handed over in parts. So is one with a header's name that is not UTF-8: Kafka takes any bytes
there, aiokafka raises UnicodeDecodeError. What is not UTF-8 in a name becomes lone surrogates, which carry the bytes (PEP 383).

Batches of formats before Kafka 0.11 are aiokafka's alone; no broker writes them any more.
"""

from collections.abc import Iterable, Iterator
from operator import attrgetter
from typing import Any, Final

from aiokafka.record.default_records import DefaultRecordBatch
from aiokafka.record.memory_records import MemoryRecords

from spanfold.stream_processors.fetching.batch_header import HEADER_BYTES, BatchHeader, has_header, uncompressed
from spanfold.stream_processors.fetching.decompression import at_most
from spanfold.stream_processors.fetching.streamed_batch import StreamedRecord, streamed

SMALL_BYTES: Final = 4 * 1024 * 1024
"""A batch that is no larger when it is decompressed, and has no more than FEW_RECORDS, is parsed at once."""

FEW_RECORDS: Final = 65_536

HEADERS_A_RECORD: Final = 8
FEW_HEADERS: Final = 100_000
"""A batch may have so many headers for each record, and so many more: each takes far more memory than its bytes."""

RECORD_WEIGHT: Final = 64
HEADER_WEIGHT: Final = 64
"""Bytes of memory that a record and a header take at least, besides their bytes."""

LARGE_BYTES: Final = 4096
LARGE_FACTOR: Final = 8
"""Values beyond LARGE_BYTES weigh so many times their size: an array of small numbers takes thirty times its bytes, once decoded.
"""

LIGHT: Final = 2 * 1024 * 1024
"""A batch of no more weight is weighed as a whole, others record by record."""

_LENGTH_AT: Final = 8
_LENGTH_ENDS: Final = 12

_headers_of: Final = attrgetter("headers")


class Paused(Exception):
    """A streamed batch has come as far as it may at a time. Iterate again to go on."""


class FetchedRecords:
    """aiokafka's MemoryRecords, whose batches are RecordBatches. `data`: what a fetch brought of one partition. `weight`: about
    how many bytes of memory the records took that have been handed over.
    """

    max_value_bytes: int = SMALL_BYTES
    """Larger values are cut. Set once, when the process starts to read."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        self._records = MemoryRecords(data)
        self._last: RecordBatch | None = None
        self._again = False
        self.weight = 0

    def has_next(self) -> bool:
        """Whether there is one more whole batch."""
        return self._again or bool(self._records.has_next())

    def size_in_bytes(self) -> int:
        """Of what was fetched, a batch that is cut off at the end included."""
        return int(self._records.size_in_bytes())

    def next_batch(self) -> "RecordBatch":
        """The next one; the last one when it is to come again."""
        if self._again and self._last is not None:
            self._again = False
            return self._last
        begin = self._at
        length = int.from_bytes(self._data[begin + _LENGTH_AT : begin + _LENGTH_ENDS], "big")
        self._at += _LENGTH_ENDS + length
        self._last = RecordBatch(self._records.next_batch(), memoryview(self._data)[begin : self._at], self)
        return self._last

    def come_again(self) -> None:
        """Have the last batch as the next one: it was paused."""
        self._again = True


class RecordBatch:
    """aiokafka's batch: the same attributes, the same records."""

    def __init__(self, batch: Any, data: memoryview, fetched: FetchedRecords) -> None:
        self._batch = batch
        self._data = data
        self._fetched = fetched
        self._stream: Iterator[StreamedRecord | None] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def __next__(self) -> Any:
        """The first record: a control batch is read so."""
        return next(self._batch)

    def validate_crc(self) -> bool:
        """Whether the bytes are those that were sent; one that comes again has been validated."""
        return self._stream is not None or bool(self._batch.validate_crc())

    def __iter__(self) -> Iterator[Any]:
        if self._stream is None:
            if not has_header(self._data):
                return iter(list(self._batch))
            header, limit = BatchHeader.of(self._data), self._fetched.max_value_bytes
            if (small := self._small(header, min(SMALL_BYTES, limit))) is not None:
                return small
            self._stream = streamed(header, self._data[HEADER_BYTES:], limit)
        return self._streamed(self._stream)

    def _small(self, header: BatchHeader, limit: int) -> Iterator[Any] | None:
        """The records of a batch that is small enough to be parsed at once; None of others."""
        if header.records > FEW_RECORDS:
            return None
        plain = at_most(header.codec, self._data[HEADER_BYTES:], limit)
        if plain is None:
            return None
        try:
            records = list(DefaultRecordBatch(uncompressed(self._data, plain)) if header.codec else self._batch)
        except UnicodeDecodeError:
            return None
        headers = sum(map(len, map(_headers_of, records)))
        if headers > HEADERS_A_RECORD * len(records) + FEW_HEADERS:
            return None
        weight = len(plain) + RECORD_WEIGHT * len(records) + HEADER_WEIGHT * headers
        if weight > LIGHT or len(plain) > LARGE_BYTES * len(records):
            return self._weighed(records)
        self._fetched.weight += weight
        return iter(records)

    def _streamed(self, stream: Iterator[StreamedRecord | None]) -> Iterator[Any]:
        for record in stream:
            if record is None:
                raise Paused
            yield from self._weighed([record])

    def _weighed(self, records: Iterable[Any]) -> Iterator[Any]:
        for record in records:
            self._fetched.weight += _weight(record)
            yield record


def _weight(record: Any) -> int:
    size = len(record.value) if isinstance(record.value, bytes) else 0
    headers = sum(HEADER_WEIGHT + len(name) + len(value or b"") for name, value in record.headers)
    factor = LARGE_FACTOR if size > LARGE_BYTES else 1
    return RECORD_WEIGHT + factor * size + len(record.key or b"") + headers
