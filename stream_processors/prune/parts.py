"""The parts of a pruning: what can be deleted of each, and what holds back more."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Final, Literal

from spanfold.language.times import EPOCH, as_datetime
from spanfold.language.topics import US_PER_DAY

Kind = Literal["log", "journal", "table"]


@dataclass(frozen=True, slots=True)
class Bound:
    """How far something may be deleted, and what says so. `at` is an offset or a time (µs since 1970 UTC)."""

    at: int
    words: str


NO_RETENTION: Final = "no retention set"
NOTHING_JUDGED: Final = "nothing has been judged yet"


@dataclass(frozen=True, slots=True)
class Part:
    """A partition of a topic's log, a topic's journal, or a table.

    `records` are those that go: offsets of the log, records of the journal, rows of all generations that workers keep up. `days`
    are those of the journal, `bytes` what their tables take. `before` says in words up to where; `held_by` why not more.
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
        where = "" if self.partition is None else f"/{self.partition}"
        return f"{self.kind} {self.name}{where}"

    @property
    def frees(self) -> bool:
        """Whether there is anything to do."""
        return self.records > 0 or self.days > 0


def least(bounds: Iterable[Bound]) -> Bound:
    """The one that holds back most; of equal ones the first."""
    return min(bounds, key=lambda bound: bound.at)


def most(bounds: Iterable[Bound]) -> Bound:
    """The one that lets most go; of equal ones the first."""
    return max(bounds, key=lambda bound: bound.at, default=Bound(0, NO_RETENTION))


def day_floor(us: int) -> int:
    """The beginning of the day (UTC) of a time, in µs since 1970."""
    return us // US_PER_DAY * US_PER_DAY


def time_text(us: int) -> str:
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
