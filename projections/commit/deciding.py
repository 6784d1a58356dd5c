"""What becomes of a batch's records at or above the journal's checkpoint: accepted, rejected or parked.

The rules that need no database have been applied when the batch was prepared. Here those follow that depend on earlier records:
what was erased, what the topic's arbiter has seen before, and, on a conditional topic, what is parked.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from psycopg import Cursor

from spanfold.language.errors import PoisonRecord
from spanfold.language.parking import ParkedReason
from spanfold.language.topics import ON_EVERY_TOPIC, TopicKind
from spanfold.projections.commit.arbiter import Arbiter
from spanfold.projections.commit.batch import Outcome
from spanfold.projections.commit.erasure import Erased, erased_among, register, rejected
from spanfold.projections.commit.preparing import Prepared
from spanfold.projections.commit.settlements import EARLIER_PARKED, held_up
from spanfold.projections.commit.unfolded import write_parked, write_rejected
from spanfold.projections.commit.verdicts import Judged, Rejection


@dataclass(frozen=True, slots=True)
class Decision:
    """By index into the batch: which records at or above the journal's checkpoint are rejected, and which of the accepted ones
    are parked. `fresh` counts all of them, `unfolded` has the offsets of those that had been prepared to be folded and are not,
    `erased` the keys of the batch whose trace was erased before.
    """

    fresh: int
    rejected: Mapping[int, Rejection]
    parked: Mapping[int, PoisonRecord]
    unfolded: set[int]
    erased: Erased

    def outcome(self) -> Outcome:
        """The same, counted."""
        return Outcome(
            folded=self.fresh - len(self.rejected) - len(self.parked),
            rejected=_count(rejection.verdict for rejection in self.rejected.values()),
            parked=_count(poison.reason for poison in self.parked.values()),
        )


def decide(cursor: Cursor[Any], prepared: Prepared, arbiter: Arbiter, judged_to: int) -> Decision:
    """Judge the records at `judged_to` or above. The arbiter keeps those that it accepts, an erasure is noted; the rest is only
    decided, see `keep_unfolded`.
    """
    judged, offsets = prepared.judged, prepared.batch.offsets
    fresh = [index for index, offset in enumerate(offsets) if offset >= judged_to]
    erased = erased_among(cursor, prepared.batch)
    late = rejected(judged, erased, fresh)
    refused = judged.rejections.keys() | late.keys()
    candidates = [index for index in fresh if index not in refused] if refused else fresh
    decided = late | (arbiter.decide(cursor, judged, candidates) if candidates else {})
    erasing = [index for index in prepared.erasures if index in candidates and index not in decided]
    for index in erasing:
        register(cursor, judged, index)
    done = {*decided, *erasing}
    parked = {index: why for index, why in prepared.parked.items() if offsets[index] >= judged_to and index not in done}
    if prepared.batch.topic.kind is TopicKind.CONDITIONAL:
        parked |= _behind(cursor, judged, [index for index in candidates if index not in decided], parked)
    by_header = {index: judged.rejections[index] for index in fresh if index in judged.rejections}
    unfolded = {offsets[index] for index in (*decided, *parked)}
    return Decision(len(fresh), by_header | decided, parked, unfolded, erased)


def _behind(
    cursor: Cursor[Any], judged: Judged, accepted: Sequence[int], parked: Mapping[int, PoisonRecord]
) -> dict[int, PoisonRecord]:
    """Those accepted records that are parked because an earlier one of their aggregate is."""
    keys, behind = judged.aggregate_ids, {}
    blocked = held_up(cursor, judged.batch, [keys[index] for index in accepted])
    for index in accepted:
        if index in parked:
            blocked.add(keys[index])
        elif keys[index] in blocked and judged.event_types[index] not in ON_EVERY_TOPIC:
            behind[index] = PoisonRecord(ParkedReason.BEHIND, EARLIER_PARKED)
    return behind


def keep_unfolded(cursor: Cursor[Any], judged: Judged, decision: Decision) -> None:
    """Write the rejected and the parked records."""
    if decision.rejected:
        write_rejected(cursor, judged, decision.rejected, nameless=decision.erased)
    if decision.parked:
        write_parked(cursor, judged, decision.parked)


def _count(names: Iterable[str]) -> dict[str, int]:
    return dict(Counter(map(str, names)))
