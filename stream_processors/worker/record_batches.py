"""aiokafka's record batches, also when a header's name is not UTF-8.

Kafka takes any bytes for a header's name; aiokafka's parser raises UnicodeDecodeError, and so would end every worker that
comes to that record. Here such a batch is parsed again by aiokafka's parser in Python, and what is not UTF-8 in a name
becomes lone surrogates, which carry the bytes (PEP 383). All other batches cost what they cost before.
"""

from collections.abc import Iterator
from typing import Any, Final, SupportsIndex, cast

from aiokafka.record.default_records import _DefaultRecordBatchPy
from aiokafka.record.memory_records import MemoryRecords

_LENGTH_AT: Final = 8
_LENGTH_ENDS: Final = 12


class FetchedRecords:
    """aiokafka's MemoryRecords, whose batches are RecordBatches. `data`: what a fetch brought of one partition."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        self._records = MemoryRecords(data)

    def has_next(self) -> bool:
        """Whether there is one more whole batch."""
        return bool(self._records.has_next())

    def size_in_bytes(self) -> int:
        """Of what was fetched, a batch that is cut off at the end included."""
        return int(self._records.size_in_bytes())

    def next_batch(self) -> "RecordBatch":
        """The next one."""
        begin = self._at
        length = int.from_bytes(self._data[begin + _LENGTH_AT : begin + _LENGTH_ENDS], "big")
        self._at += _LENGTH_ENDS + length
        return RecordBatch(self._records.next_batch(), memoryview(self._data)[begin : self._at])


class RecordBatch:
    """aiokafka's batch: the same attributes, the same records."""

    def __init__(self, batch: Any, data: memoryview) -> None:
        self._batch = batch
        self._data = data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def __next__(self) -> Any:
        """The first record: a control batch is read so."""
        return next(self._batch)

    def __iter__(self) -> Iterator[Any]:
        try:
            return iter(list(self._batch))
        except UnicodeDecodeError:
            return iter(list(_LenientBatch(self._data)))


class _LenientBatch(_DefaultRecordBatchPy):  # type: ignore[misc]  # aiokafka has no types
    def _maybe_uncompress(self) -> None:
        super()._maybe_uncompress()
        self._buffer: bytearray = _LenientBytes(self._buffer)


class _LenientBytes(bytearray):
    """The parser slices a name out of its buffer and decodes that."""

    def __getitem__(self, key: SupportsIndex | slice) -> Any:
        found = super().__getitem__(key)
        return _LenientBytes(cast(bytearray, found)) if isinstance(key, slice) else found

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return super().decode(encoding, "surrogateescape")
