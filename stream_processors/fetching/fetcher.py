"""aiokafka's fetcher, which hands over records in parts of bounded size, and none while enough of them are in memory.

aiokafka bounds a part by its number of records alone. These are private names of aiokafka, which is why its version is pinned.
"""

import asyncio
import time
from typing import Any, Final
from weakref import WeakSet

from aiokafka.consumer import consumer, fetcher

from spanfold.stream_processors.fetching.record_batches import FetchedRecords, Paused

PART_BYTES: Final = 8 * 1024 * 1024
"""A part of a partition's records ends with the record that brings it to this weight."""

HELD_BYTES: Final = 48 * 1024 * 1024
"""Nothing is handed over while parts of this weight are in memory."""

FEW_PARTS: Final = 2
"""So many are no reason to wait: whoever asks for more may hold the last ones until more come."""

_LOOK_S: Final = 0.01


class Part(list[Any]):
    """Records of one partition, handed over together; `weight` is about how many bytes of memory they take."""

    __slots__ = ("__weakref__", "weight")
    weight: int

    __hash__ = object.__hash__  # type: ignore[assignment]  # one is never the same as another


class _Held:
    """The parts that somebody still holds."""

    def __init__(self) -> None:
        self._parts: WeakSet[Part] = WeakSet()

    def add(self, part: Part) -> None:
        self._parts.add(part)

    def is_full(self) -> bool:
        weights = [part.weight for part in self._parts]
        return len(weights) > FEW_PARTS and sum(weights) >= HELD_BYTES

    async def has_room(self, timeout_s: float) -> bool:
        """Whether there is room within this time."""
        deadline = time.monotonic() + timeout_s
        while self.is_full():
            if time.monotonic() >= deadline:
                return False
            await asyncio.sleep(_LOOK_S)
        return True


_HELD: Final = _Held()
"""Of this process, which has one memory."""


class ParsedRecords(fetcher.PartitionRecords):  # type: ignore[misc]  # aiokafka has no types
    """aiokafka's records of one fetch: key, value, headers, offset and timestamp (ms) of each, not copied. Iterating may raise
    Paused; then iterate again.
    """

    def _consumer_record(self, tp: Any, record: Any) -> Any:
        return record

    def __next__(self) -> Any:
        try:
            return super().__next__()
        except Paused:
            self._records.come_again()
            self._records_iterator = self._unpack_records()
            raise

    @property
    def weight(self) -> int:
        """Of all records that were handed over."""
        return int(self._records.weight)


class PartResult(fetcher.FetchResult):  # type: ignore[misc]  # aiokafka has no types
    """What a fetch brought of one partition."""

    is_paused = False
    _partition_records: Any

    def getall(self, max_records: int | None = None) -> Part:
        """The next part. Empty when there is none for now."""
        part = Part()
        part.weight = 0
        if not self.check_assignment(self._topic_partition) or not self.has_more() or _HELD.is_full():
            return part
        records, self.is_paused = self._partition_records, False
        fetched: FetchedRecords = records._records
        begin = fetched.weight
        end = begin + PART_BYTES
        try:
            for record in records:
                part.append(record)
                if len(part) == max_records or fetched.weight >= end:
                    self._update_position()
                    break
            else:
                self._update_position()
                self._partition_records = None
        except Paused:
            self._update_position()
            self.is_paused = True
        part.weight = fetched.weight - begin
        if part:
            _HELD.add(part)
        return part


class BoundedFetcher(fetcher.Fetcher):  # type: ignore[misc]  # aiokafka has no types
    """Hands over parts, turn by turn between the partitions that have records."""

    async def fetched_records(
        self,
        partitions: Any,
        timeout: float = 0,  # noqa: ASYNC109  (the stock signature)
        max_records: int | None = None,
    ) -> dict[Any, Part]:
        """A part of some partitions, as soon as there is one; nothing while too much is in memory, or after `timeout` seconds."""
        if not await _HELD.has_room(timeout or 0):
            return {}
        drained: dict[Any, Part] = await super().fetched_records(partitions, 0, max_records)
        if not drained and self._has_paused(partitions):
            await asyncio.sleep(0)
        elif not drained:
            drained = await super().fetched_records(partitions, timeout, max_records)
        for tp in drained:
            if tp in self._records:
                self._records.move_to_end(tp)
        return drained

    def _has_paused(self, partitions: Any) -> bool:
        """Whether one of these has more to read of a batch; of all when none is named."""
        return any(
            isinstance(result, PartResult) and result.is_paused and (not partitions or tp in partitions)
            for tp, result in self._records.items()
        )


def use_bounded_memory(max_value_bytes: int) -> None:
    """Have aiokafka's consumers of this process read in bounded memory; larger values are cut. They make their own fetchers, and
    have no other way to be told of other classes.
    """
    FetchedRecords.max_value_bytes = max_value_bytes
    fetcher.MemoryRecords = FetchedRecords
    fetcher.PartitionRecords = ParsedRecords
    fetcher.FetchResult = PartResult
    consumer.Fetcher = BoundedFetcher
