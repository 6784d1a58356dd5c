"""What is done to a batch before its transaction: judge, decode, fold. Pure, so that it happens while Postgres commits the batch
before.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from spanfold.language.errors import PoisonRecord
from spanfold.language.topics import NOT_FOLDED, ON_EVERY_TOPIC, TRACE_ERASED, Topic, TopicKind
from spanfold.projections.commit.batch import Batch
from spanfold.projections.commit.reading import read, read_again
from spanfold.projections.commit.verdicts import Judged, judge
from spanfold.projections.facts import Fact
from spanfold.projections.projection import Projection, folding
from spanfold.schemas.codec import Codec


@dataclass(frozen=True, slots=True)
class Prepared:
    """A batch read and folded as if every record that its headers allow were accepted. Needs no database.

    `settlements` are facts about parked records; they are not for projections. `erasures` are the indexes of records that
    erase their trace, as their headers say. `refused`: Postgres would not have what the batch's only record makes foldable.
    `partials` lacks a projection whose fold failed: it is folded again, and fails again, where it can be suspended.
    """

    judged: Judged
    parked: dict[int, PoisonRecord]
    facts: list[Fact]
    partials: Mapping[str, Any]
    settlements: list[Fact] = field(default_factory=list)
    erasures: Sequence[int] = ()
    refused: PoisonRecord | None = None

    @property
    def batch(self) -> Batch:
        return self.judged.batch

    @property
    def unreadable(self) -> Mapping[int, PoisonRecord]:
        """By offset: why a record can't be folded by this code."""
        return {self.batch.offsets[index]: poison for index, poison in self.parked.items()}


class Preparer:
    """Prepares batches for these projections."""

    def __init__(self, projections: Mapping[str, Projection], codec: Codec) -> None:
        self._projections = projections
        self._codec = codec

    def prepare(self, batch: Batch, refused: PoisonRecord | None = None) -> Prepared:
        """Judge, decode and fold the batch. `refused`: why Postgres did not take the batch's only record."""
        judged = judge(batch)
        parked: dict[int, PoisonRecord] = {}
        return self._prepared(judged, parked, read(judged, self._codec, parked), refused)

    def prepare_again(self, batch: Batch) -> Prepared:
        """Decode and fold a batch that has been judged before, see read_again."""
        parked: dict[int, PoisonRecord] = {}
        judged, facts = read_again(batch, self._codec, parked)
        return self._prepared(judged, parked, facts, None)

    def _prepared(
        self, judged: Judged, parked: dict[int, PoisonRecord], facts: list[Fact], refused: PoisonRecord | None
    ) -> Prepared:
        settlements: list[Fact] = []
        erasures: Sequence[int] = ()
        if not set(NOT_FOLDED).isdisjoint(judged.event_types):
            settlements = [fact for fact in facts if fact[1] in ON_EVERY_TOPIC]
            facts = [fact for fact in facts if fact[1] not in NOT_FOLDED]
            erasures = _erasures(judged)
        if refused is not None and facts:
            # a fact about a parked record is not parked itself: it leaves that one parked
            parked, facts = {0: refused}, []
        return Prepared(judged, parked, facts, self._fold(judged.batch.topic, facts), settlements, erasures, refused)

    def _fold(self, topic: Topic, facts: Sequence[Fact]) -> dict[str, Any]:
        partials = {}
        for projection in folding(topic, self._projections):
            with suppress(Exception):  # the projection's code may raise anything
                partials[projection.name] = projection.fold(facts)
        return partials


def _erasures(judged: Judged) -> list[int]:
    if not judged.batch.topic.erasable:
        return []
    return [index for index, event_type in enumerate(judged.event_types) if event_type == TRACE_ERASED]


def border_of(prepared: Prepared) -> int | None:
    """Where to cut the batch, so that what its records do to others does not depend on where it was cut before: behind each
    erasure, and on a conditional topic around each settlement, which releases what is folded before the records after it.
    """
    batch = prepared.batch
    if ends := [index + 1 for index in prepared.erasures if index + 1 < len(batch)]:
        # the one in the middle: each part is prepared again
        return ends[len(ends) // 2]
    if batch.topic.kind is TopicKind.TELEMETRY or not prepared.settlements or len(batch) == 1:
        return None
    return min(batch.offsets.index(offset) for offset, _, _ in prepared.settlements) or 1
