"""Facts about parked records. RecordRetried folds one at that place of the log, if it can be read now; RecordDiscarded gives it
up. Either happens once, and every replay does the same at the same place.

On a conditional topic a parked record holds up its aggregate's later ones: they are parked `behind` it, and folded in order
where it is settled.
"""

from collections.abc import Iterable, Sequence, Set
from typing import Any, Final, NamedTuple, cast

from psycopg import Cursor

from spanfold.language.errors import Misconfigured, PoisonRecord
from spanfold.language.parking import ParkedReason
from spanfold.language.positions import Position
from spanfold.language.topics import NOT_FOLDED, TRACE_ERASED, TopicKind
from spanfold.projections.commit.batch import Batch
from spanfold.projections.commit.cut import CutValue, RecordHeaders, Value
from spanfold.projections.commit.journal import CORE
from spanfold.projections.commit.preparing import Prepared
from spanfold.projections.commit.reading import read
from spanfold.projections.commit.verdicts import judge
from spanfold.projections.facts import Fact
from spanfold.schemas.codec import Codec

EARLIER_PARKED: Final = "an earlier record of its aggregate is parked"

ERASE_AGAIN: Final = (
    "TraceErased erases only where it lies, and was not known there: erase the trace again with `spanfold erase`"
)

Settled = tuple[int, list[Fact]]
"""(offset of the fact, what is to be folded there)."""


def settle(cursor: Cursor[Any], codec: Codec, prepared: Prepared, unfolded: Set[int], judged_to: int) -> list[Settled]:
    """Settle what the batch's facts about parked records name, but for the `unfolded` ones; returns what is to be folded. Below
    `judged_to` nothing is settled anew: what was folded there before is folded again.
    """
    facts = sorted((fact for fact in prepared.settlements if fact[0] not in unfolded), key=lambda fact: fact[0])
    if not facts:
        return []
    batch = prepared.batch
    settled = _settled_before(cursor, codec, batch, [at for at, _, _ in facts if at < judged_to])
    # a fact that names a place which the log had not reached means nothing, also if its batch holds a record there
    fresh = [fact for fact in facts if fact[0] >= judged_to and fact[0] > fact[2]["record_offset"]]
    rows = _parked(cursor, batch, "kafka_offset = ANY (%s)", [fields["record_offset"] for _, _, fields in fresh])
    settling = _Settling(cursor, codec, batch, {row.offset: row for row in rows}, prepared.refused)
    settled += [(at, settling.apply(at, event_type, fields["record_offset"])) for at, event_type, fields in fresh]
    settling.write()
    return settled


def held_up(cursor: Cursor[Any], batch: Batch, aggregate_ids: Sequence[str]) -> set[str]:
    """Those of the aggregates that have a parked record which nothing has settled."""
    cursor.execute(HELD_UP, (batch.topic.name, batch.partition, list(set(aggregate_ids))))
    return {aggregate_id for (aggregate_id,) in cursor}


class _Parked(NamedTuple):
    """A parked record that nothing has settled; a row of PARKED."""

    offset: int
    aggregate_id: str
    log_time_ms: int
    key: bytes
    headers: list[list[Any]]
    value: bytes | None
    value_bytes: int | None
    value_sha256: bytes | None
    reason: str
    settled_offset: int | None

    def whole_or_cut(self) -> Value:
        """The value, as a record that has just come would have it."""
        if self.value_bytes is None or self.value_sha256 is None:
            return self.value
        return CutValue(self.value_bytes, self.value_sha256, self.value or b"")


class _Settling:
    """Applies facts one after the other to the parked records that they name; `write` keeps what became of them."""

    def __init__(
        self, cursor: Cursor[Any], codec: Codec, batch: Batch, rows: dict[int, _Parked], refused: PoisonRecord | None
    ) -> None:
        self._cursor, self._codec, self._batch, self._refused = cursor, codec, batch, refused
        self._rows = rows
        self._done: list[tuple[str, int, int]] = []
        self._tried: list[tuple[int, str, str, int]] = []

    def apply(self, at: int, event_type: str, offset: int) -> list[Fact]:
        """What the fact at `at` makes foldable."""
        row = self._rows.get(offset)
        if row is None:
            return []
        held = self._batch.topic.kind is TopicKind.CONDITIONAL and _waits_for_earlier(self._cursor, self._batch, row)
        facts = self._discard(at, row) if event_type == "RecordDiscarded" else self._retry(at, row, held)
        if facts is None:
            return []
        del self._rows[offset]
        return facts if held else [*facts, *self._release(at, row)]

    def _discard(self, at: int, row: _Parked) -> list[Fact]:
        self._done.append(("discarded", at, row.offset))
        return []

    def _retry(self, at: int, row: _Parked, held: bool) -> list[Fact] | None:
        """The record's facts; None if it stays parked."""
        if held:
            # folded when the one before it is, if it can be read then
            self._tried.append((at, ParkedReason.BEHIND, EARLIER_PARKED, row.offset))
            return None
        return self._read(at, row)

    def _read(self, at: int, row: _Parked) -> list[Fact] | None:
        """The record's facts, which are folded at `at`; None if it stays parked, for the reason that it has now."""
        try:
            if self._refused is not None:
                raise self._refused
            facts = _facts(self._codec, self._batch, row)
            if any(event_type == TRACE_ERASED for _, event_type, _ in facts):
                raise PoisonRecord(ParkedReason.INVALID, ERASE_AGAIN)
        except PoisonRecord as poison:
            self._tried.append((at, poison.reason, poison.detail, row.offset))
            return None
        self._done.append(("retried", at, row.offset))
        return _folded(facts)

    def _release(self, at: int, before: _Parked) -> list[Fact]:
        """Conditional topics: what was parked behind the settled record, up to the next one that can't be read by itself."""
        facts: list[Fact] = []
        if self._batch.topic.kind is TopicKind.CONDITIONAL:
            condition = "aggregate_id = %s AND kafka_offset > %s"
            for row in _parked(self._cursor, self._batch, condition, before.aggregate_id, before.offset):
                released = self._read(at, row) if row.reason == ParkedReason.BEHIND else None
                if released is None:
                    break
                facts += released
        return facts

    def write(self) -> None:
        where = (self._batch.topic.name, self._batch.partition)
        if self._done:
            self._cursor.executemany(DONE, [(how, at, *where, offset) for how, at, offset in self._done])
        if self._tried:
            self._cursor.executemany(
                TRIED, [(at, why, detail, *where, offset) for at, why, detail, offset in self._tried]
            )


def _waits_for_earlier(cursor: Cursor[Any], batch: Batch, row: _Parked) -> bool:
    return bool(_parked(cursor, batch, "aggregate_id = %s AND kafka_offset < %s", row.aggregate_id, row.offset))


def _settled_before(cursor: Cursor[Any], codec: Codec, batch: Batch, places: list[int]) -> list[Settled]:
    """What was folded at these places when the facts there were judged."""
    if not places:
        return []
    cursor.execute(RETRIED.encode(), (batch.topic.name, batch.partition, places))
    settled: dict[int, list[Fact]] = {}
    for row in map(_Parked._make, cursor.fetchall()):
        at = cast(int, row.settled_offset)
        try:
            settled.setdefault(at, []).extend(_folded(_facts(codec, batch, row)))
        except PoisonRecord as poison:
            raise Misconfigured(
                f"{Position(batch.topic.name, batch.partition, row.offset)} was retried and folded at {at}, but this "
                f"version cannot read it ({poison}): use the version that could"
            ) from poison
    return list(settled.items())


def _facts(codec: Codec, batch: Batch, row: _Parked) -> list[Fact]:
    """The parked record, read as if it had just come. Its fact keeps its own offset."""
    one = Batch(
        batch.topic, batch.partition, batch.partitions, row.offset, row.offset + 1,
        [row.offset], [row.log_time_ms], [row.key], [_raw(row.headers)], [row.whole_or_cut()],
    )  # fmt: skip
    parked: dict[int, PoisonRecord] = {}
    facts = read(judge(one), codec, parked)
    if parked:
        raise parked[0]
    return facts


def _folded(facts: Iterable[Fact]) -> list[Fact]:
    """Those that projections fold; a fact about other records counts only where it lies."""
    return [fact for fact in facts if fact[1] not in NOT_FOLDED]


def _raw(headers: list[list[Any]]) -> RecordHeaders:
    """Headers as the record had them; see spanfold.projections.commit.unfolded.headers_json."""

    def raw(value: Any) -> bytes | None:
        if isinstance(value, dict):
            return bytes.fromhex(value["hex"])
        return None if value is None else str(value).encode()

    return [((raw(name) or b"").decode(), raw(value)) for name, value in headers]


def _parked(cursor: Cursor[Any], batch: Batch, condition: str, *values: Any) -> list[_Parked]:
    """The parked records of the batch's partition that nothing has settled, in offset order."""
    statement = f"{PARKED} AND settled_offset IS NULL AND {condition} ORDER BY kafka_offset"
    cursor.execute(statement.encode(), (batch.topic.name, batch.partition, *values))
    return [_Parked._make(row) for row in cursor.fetchall()]


PARKED: Final = f"""
SELECT kafka_offset, aggregate_id, (extract(epoch FROM log_time) * 1000)::bigint, key, headers, payload,
       value_bytes, value_sha256, reason, settled_offset
  FROM {CORE}.parked
 WHERE topic = %s AND partition = %s"""

RETRIED: Final = (
    f"{PARKED} AND settled_offset = ANY (%s) AND settled_as = 'retried' ORDER BY settled_offset, kafka_offset"
)

HELD_UP: Final = f"""
SELECT DISTINCT aggregate_id FROM {CORE}.parked
 WHERE topic = %s AND partition = %s AND aggregate_id = ANY (%s) AND settled_offset IS NULL
"""

TRIED: Final = f"""
UPDATE {CORE}.parked SET last_tried_offset = %s, reason = %s, detail = %s
 WHERE topic = %s AND partition = %s AND kafka_offset = %s
"""

DONE: Final = f"""
UPDATE {CORE}.parked SET settled_as = %s, settled_offset = %s
 WHERE topic = %s AND partition = %s AND kafka_offset = %s
"""
