"""What can be let go of, part by part, and why not more."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Literal

from spanfold.language.times import EPOCH, as_datetime
from spanfold.language.topics import US_PER_DAY

Kind = Literal["log", "journal", "table"]


@dataclass(frozen=True, slots=True)
class Bound:
    """How far something may be let go of, and who or what says so. `at` is an offset, a day or a time."""

    at: int
    words: str


@dataclass(frozen=True, slots=True)
class Part:
    """A partition of a topic's log, a topic's journal, or a table.

    `records` are those that are let go of: offsets of the log, records of the journal, rows of all generations that are
    folded. `days` are those of the journal, `bytes` what their tables take. `before` says in words up to where; `held_by` why
    not more.
    """

    kind: Kind
    name: str
    partition: int | None
    records: int
    before: str | None
    held_by: str
    days: int = 0
    bytes: int = 0

    def __str__(self) -> str:
        where = "" if self.partition is None else f"[{self.partition}]"
        return f"{self.kind} {self.name}{where}"

    @property
    def frees(self) -> bool:
        """Whether there is anything to do."""
        return self.records > 0 or self.days > 0


def least(bounds: Iterable[Bound]) -> Bound:
    """The one that holds back most; of equal ones the first."""
    return min(bounds, key=lambda each: each.at)


def day_floor(us: int) -> int:
    """The beginning of the day (UTC) of a time, in µs since 1970."""
    return us // US_PER_DAY * US_PER_DAY


def words_of(us: int) -> str:
    """A time in µs since 1970 UTC, as people write it; days without a time of day."""
    try:
        moment = as_datetime(us)
    except OverflowError:
        return "the beginning" if us < 0 else "the end"
    return f"{moment:%Y-%m-%d}" if us % US_PER_DAY == 0 else f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"


def day_of(us: int) -> date:
    """The day (UTC) in which a time lies."""
    return as_datetime(us).date()


def begin_of(day: date) -> int:
    """The beginning of a day (UTC), µs since 1970."""
    return (datetime(day.year, day.month, day.day, tzinfo=UTC) - EPOCH).days * US_PER_DAY
