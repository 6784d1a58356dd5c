"""Whether a worker does its work, decided from what the broker and Postgres say and never from what it believes. Pure.

A worker is unwell
- while it owns no partition, for longer than `unowned_s`;
- while a partition that it owns is behind the log and its checkpoint has not moved, for longer than `stalled_s`;
- while Kafka or Postgres does not answer, for longer than `stalled_s`: then nobody knows how far it is behind;
- while what a snapshot worker keeps can't be fed to its topic, for longer than `stalled_s`;
- when nobody has looked for longer than `stalled_s`.

An idle topic is not behind, so its worker is well. Times are seconds of one clock that never goes back.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from spanfold.language.topics import Partition

KAFKA: Final = "Kafka"
POSTGRES: Final = "Postgres"
FEEDING: Final = "the topic of snapshots"
NO_ANSWER_YET: Final = "no answer yet"


@dataclass(frozen=True, slots=True)
class Limits:
    """How long things may be so; seconds."""

    stalled_s: float
    unowned_s: float


@dataclass(frozen=True, slots=True)
class Standing:
    """A partition that the worker owns. `fine_at`: when it was last seen to move or to be at the log's end, or became the
    worker's.
    """

    end: int
    next_offset: int
    fine_at: float

    @property
    def lag(self) -> int:
        """Records between the checkpoint and the log's end."""
        return max(self.end - self.next_offset, 0)


@dataclass(frozen=True, slots=True)
class Trouble:
    """Since when somebody has not answered, and what was said of it last."""

    since: float
    why: str


@dataclass(frozen=True, slots=True)
class Observations:
    """What has been seen so far. `troubles` is keyed by KAFKA, POSTGRES, FEEDING; without `unowned_since` it owns partitions."""

    looked_at: float
    unowned_since: float | None
    standings: Mapping[Partition, Standing] = field(default_factory=dict)
    troubles: Mapping[str, Trouble] = field(default_factory=dict)


def nothing_seen(now: float) -> Observations:
    """What a worker begins with."""
    return Observations(looked_at=now, unowned_since=now)


def asked(before: Observations, whom: str, now: float) -> Observations:
    """A question is under way: until it is answered there may be trouble, and it has begun now."""
    return replace(before, looked_at=now, troubles={whom: Trouble(now, NO_ANSWER_YET), **before.troubles})


def unanswered(before: Observations, whom: str, why: str, now: float) -> Observations:
    """The question failed."""
    since = before.troubles[whom].since if whom in before.troubles else now
    return replace(before, looked_at=now, troubles={**before.troubles, whom: Trouble(since, why)})


def answered(before: Observations, whom: str, now: float) -> Observations:
    """The question was answered."""
    left = {name: trouble for name, trouble in before.troubles.items() if name != whom}
    return replace(before, looked_at=now, troubles=left)


def seen(
    before: Observations, ends: Mapping[Partition, int], next_offsets: Mapping[Partition, int], now: float
) -> Observations:
    """Every partition that the worker owns ends there, and is folded up to there."""
    since = None if ends else before.unowned_since if before.unowned_since is not None else now
    standings = {each: _standing(before.standings.get(each), end, next_offsets.get(each, 0), now)
                 for each, end in ends.items()}  # fmt: skip
    return replace(before, looked_at=now, unowned_since=since, standings=standings)


def _standing(before: Standing | None, end: int, next_offset: int, now: float) -> Standing:
    if before is None or not before.lag or next_offset >= end or next_offset > before.next_offset:
        return Standing(end, next_offset, now)
    return Standing(end, next_offset, before.fine_at)


def unwell(seen: Observations, now: float, limits: Limits) -> list[str]:
    """What is wrong, each in a sentence; empty when the worker is well."""
    found = [
        f"{whom} has not {'been fed' if whom == FEEDING else 'answered'} for {now - trouble.since:.0f} s: {trouble.why}"
        for whom, trouble in sorted(seen.troubles.items())
        if now - trouble.since > limits.stalled_s
    ]
    if not found and now - seen.looked_at > limits.stalled_s:
        found.append(f"nobody has asked Kafka and Postgres for {now - seen.looked_at:.0f} s")
    if seen.unowned_since is not None and now - seen.unowned_since > limits.unowned_s:
        found.append(f"it has owned no partition for {now - seen.unowned_since:.0f} s")
    found += [
        f"{topic}/{partition} has not moved from offset {standing.next_offset} for {now - standing.fine_at:.0f} s, "
        f"and is {standing.lag} records behind the log"
        for (topic, partition), standing in sorted(seen.standings.items())
        if standing.lag and now - standing.fine_at > limits.stalled_s
    ]
    return found
