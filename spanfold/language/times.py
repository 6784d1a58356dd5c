"""Times and durations: in µs, as events have them, and as Python's datetime and timedelta."""

import time
from datetime import UTC, datetime, timedelta
from typing import Final

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
US: Final = timedelta(microseconds=1)


def now_us() -> int:
    """The clock of this machine, µs since 1970 UTC. For edges only: no fold and no decision reads it."""
    return time.time_ns() // 1000


def as_datetime(us: int) -> datetime:
    """µs since 1970 → a datetime in UTC. OverflowError outside the years 1 to 9999."""
    return EPOCH + us * US


def as_us(moment: datetime) -> int:
    """A datetime with a time zone → µs since 1970 UTC. ValueError without one."""
    if moment.tzinfo is None:
        raise ValueError(f"{moment.isoformat()} has no time zone: give it one, such as datetime.now(UTC)")
    return (moment - EPOCH) // US


def as_timedelta(us: int) -> timedelta:
    """µs → a timedelta."""
    return us * US
