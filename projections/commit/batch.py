"""A batch: the records of one partition between two positions, column by column, exactly as the log has them; and what can
become of it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from spanfold.language.errors import SpanfoldError
from spanfold.language.topics import Topic
from spanfold.projections.commit.cut import RecordHeaders, Value


@dataclass(frozen=True, slots=True)
class Batch:
    """Every record of `topic`[`partition`] in [start, end), in offset order.

    Offsets may have holes (control records, compaction) and the last ones may lie below end - 1, so the positions are
    part of the batch: they say what has been covered. `partitions` is the topic's partition count; log times are ms since
    1970 UTC, set by the broker. Values, keys and headers beyond a limit may be cut, see spanfold.projections.commit.cut.
    """

    topic: Topic
    partition: int
    partitions: int
    start: int
    end: int
    offsets: Sequence[int]
    log_times_ms: Sequence[int]
    keys: Sequence[bytes | None]
    headers: Sequence[RecordHeaders]
    values: Sequence[Value]

    def __len__(self) -> int:
        return len(self.offsets)

    def split(self, at: int) -> tuple["Batch", "Batch"]:
        """The same range as two batches, the second beginning with the record at index `at`. Needs 0 < at < len."""
        border = self.offsets[at]
        return self._part(slice(0, at), self.start, border), self._part(slice(at, None), border, self.end)

    def _part(self, part: slice, start: int, end: int) -> "Batch":
        return Batch(
            self.topic, self.partition, self.partitions, start, end,
            self.offsets[part], self.log_times_ms[part], self.keys[part], self.headers[part], self.values[part],
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a batch. `fenced`: all of it had been committed already, by this worker or another. `suspended`: why, by
    projection.
    """

    folded: int = 0
    rejected: Mapping[str, int] = field(default_factory=dict)
    parked: Mapping[str, int] = field(default_factory=dict)
    fenced: bool = False
    suspended: Mapping[str, str] = field(default_factory=dict)


class Gap(SpanfoldError):
    """A checkpoint lies before the batch: go back and read from `next_offset`."""

    def __init__(self, batch: Batch, next_offset: int) -> None:
        super().__init__(
            f"{batch.topic.name}/{batch.partition}: the batch starts at {batch.start}, the checkpoint is at {next_offset}"
        )
        self.next_offset = next_offset
