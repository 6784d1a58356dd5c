"""Places in the log: a writer learns where its event lies, and a reader can wait until an answer reflects it."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Self

from spanfold.language.errors import InvalidInput
from spanfold.language.topics import Partition

_TEXT: Final = re.compile(r"([a-zA-Z0-9._-]{1,249})/(\d{1,9})@(\d{1,18})", re.ASCII)

NextOffsets = Mapping[Partition, int]
"""By partition the first offset that has not been folded, judged or read yet: one more than that of the last Position reached."""


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """The place of a record: topic (without the installation's prefix), partition, offset. Whatever reflects a position reflects
    its partition up to and including that record.
    """

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}@{self.offset}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """The inverse of str(): `spanfold.traces/2@41`. InvalidInput for other texts."""
        matched = _TEXT.fullmatch(text)
        if matched is None:
            raise InvalidInput(f"position {text!r}: expected topic/partition@offset, such as spanfold.traces/2@41")
        return cls(matched[1], int(matched[2]), int(matched[3]))


def missing(at_least: Iterable[Position], reflected: Iterable[Position]) -> tuple[Position, ...]:
    """Those of `at_least` that are not reflected yet."""
    reached = {(position.topic, position.partition): position.offset for position in reflected}
    return tuple(each for each in at_least if reached.get((each.topic, each.partition), -1) < each.offset)
