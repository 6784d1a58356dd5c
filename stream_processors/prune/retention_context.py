"""What a pruning is planned from: the installation, what its checkpoints say, and what the broker says."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import psycopg

from spanfold.kafka.log_ends import Bounds
from spanfold.language.positions import NextOffsets
from spanfold.language.settings import Settings
from spanfold.language.topics import Partition, TopicOnBroker
from spanfold.projections.projection import Projection
from spanfold.projections.retention.log_readers import ReaderPosition, last_judged
from spanfold.stream_processors.prune.parts import Bound, time_text
from spanfold.stream_processors.rebuild.log_reader import LogReader

NEVER: Final = -(1 << 62)
"""A time (µs) before every record."""


@dataclass(frozen=True, slots=True)
class RetentionContext:
    """An installation at a moment. `busy` are projections that another process works on, with who that is.

    The readers' positions were taken twice: `earlier`, then the ends of the log were asked for, then `readers`. So a reader that
    stands at an end will only meet records that reached the log after the last one that was judged `earlier`. `parked_in_log` was
    taken last: the first parked record of each partition whose bytes only the log has.

    `begins_by_size`: of partitions whose log is larger than it may be, the offset at which the part begins that is kept.
    """

    settings: Settings
    control: psycopg.Connection[Any]
    topics: Mapping[str, TopicOnBroker]
    projections: Mapping[str, Projection]
    busy: Mapping[str, str]
    log: LogReader
    earlier: Sequence[ReaderPosition]
    watermarks: Mapping[Partition, Bounds]
    readers: Sequence[ReaderPosition]
    begins_by_size: Mapping[Partition, int]
    parked_in_log: NextOffsets

    @property
    def now(self) -> int | None:
        """The log time of the last record that was judged on any topic, µs since 1970; no clock is read."""
        return last_judged(self.earlier)

    def slowest(self, readers: Iterable[ReaderPosition]) -> Bound | None:
        """Which of these has come least far in log time (µs); None when there is none."""
        return min(map(self._reached, readers), key=lambda bound: bound.at, default=None)

    def _reached(self, reader: ReaderPosition) -> Bound:
        """The log time before which this reader will meet no record any more."""
        where = f"{reader} in {reader.topic}/{reader.partition}"
        end = self.watermarks[reader.topic, reader.partition][1]
        times = [reader.log_time, self.now if reader.next_offset >= end else None]
        reached = max((time for time in times if time is not None), default=None)
        if reached is None:
            return Bound(NEVER, f"{where}, and has met no record there yet")
        return Bound(reached, f"{where}, which is of {time_text(reached)}")

    def offset_at(self, topic: str, partition: int, us: int) -> int:
        """The first offset that the broker appended at this time or later; the end where there is none."""
        on_broker = (self.topics[topic].name, partition)
        offset = self.log.offsets_for_times({on_broker: max(us, 0) // 1000})[on_broker]
        return self.watermarks[topic, partition][1] if offset is None else offset
