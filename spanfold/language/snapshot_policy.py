"""When an aggregate's state becomes a snapshot. It decides what lies where, never what a state is.

Times are the log's: a worker that reads an old log takes the snapshots that it would have taken then.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal

US_PER_S: Final = 1_000_000

AT_ONCE: Final = 0
"""1970: whatever the log's time is, it is due."""


NEVER: Final = 3_153_600_000
"""Seconds of a hundred years, and more records than an aggregate has: what to set where something is never to be due."""

PolicyField = Literal["quiet_s", "every_records", "at_least_every_s"]

_LEAST: Final[Mapping[PolicyField, float]] = {"quiet_s": 0, "every_records": 1, "at_least_every_s": 1 / US_PER_S}

PolicyChanges = dict[PolicyField, float]
"""What one aggregate's policy says otherwise than the general one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotPolicy:
    """A snapshot is due when the aggregate is closed and its last event lies `quiet_s` back, when it has so many records
    that are in no snapshot, and `at_least_every_s` after the first of those came; whatever is first.
    """

    quiet_s: float = 60.0
    every_records: float = 1_000
    at_least_every_s: float = 3_600.0

    def due_at(self, *, closed: bool, records: int, first_log_time: int, last_event_at: int) -> int:
        """The log time from which it is due; all in µs since 1970 UTC. `records` and `first_log_time` are of those that are in
        no snapshot.
        """
        if records >= self.every_records:
            return AT_ONCE
        due = first_log_time + int(self.at_least_every_s * US_PER_S)
        return max(min(due, last_event_at + int(self.quiet_s * US_PER_S)), AT_ONCE) if closed else due


def checked(name: PolicyField, value: float) -> float:
    """The value, if times can be reckoned with it. ValueError says which ones can be set."""
    if not _LEAST[name] <= value <= NEVER:
        raise ValueError(f"{name} is {value}: expected {_LEAST[name]:g} to {NEVER}, and that last one for never")
    return value


def changed(policy: SnapshotPolicy, changes: PolicyChanges) -> SnapshotPolicy:
    """The policy, but for what is changed."""
    return replace(policy, **{str(name): value for name, value in changes.items()})
