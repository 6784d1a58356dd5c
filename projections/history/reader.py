"""Reads the journals: the events of an aggregate by version, and the answers to appends. Statements name the journals'
own tables, because the public view over all of them would lose their indexes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from spanfold.application.event_store import Appended, Conflict, Rejected
from spanfold.language.errors import InvalidInput, Misconfigured
from spanfold.language.positions import Position
from spanfold.language.topics import Topic, TopicKind
from spanfold.postgres.pool import Postgres, Row
from spanfold.projections.commit.arbiter import arbiter_of
from spanfold.projections.commit.journal import CORE, JOURNAL
from spanfold.projections.history.gaps import day_of, refuse_forgotten, refuse_gaps

Answer = Appended | Rejected


@dataclass(frozen=True, slots=True)
class JudgedAppend:
    """An append that the journal has passed: where its record lies, and what its headers say."""

    position: Position
    aggregate_id: str
    event_id: bytes
    occurred_at: int
    expected_version: int | None = None


@dataclass(frozen=True, slots=True)
class JournalRecord:
    """An accepted record of an aggregate. `parked` says why it is not folded, `discarded` that it never will be; `log_time` is
    µs since 1970 UTC.
    """

    aggregate_id: str
    version: int
    position: Position
    log_time: int
    payload: bytes | None
    parked: str | None
    discarded: bool


@dataclass(frozen=True, slots=True)
class JudgedHistory:
    """The records of one aggregate by version, its version, and the first offset of its partition that is not judged yet."""

    records: Sequence[JournalRecord]
    version: int
    next_offset: int


class HistoryReader:
    """Reads over `postgres`. `within_s` bounds each question; errors are those of Postgres.rows."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres
        self._partitions: dict[str, int] = {}

    async def partitions(self, topic: Topic, within_s: float) -> int:
        """How many partitions the topic has. Misconfigured when the database does not know it."""
        if topic.name not in self._partitions:
            rows = await self._postgres.rows(PARTITIONS, (topic.name,), within_s=within_s)
            if not rows:
                raise Misconfigured(f"Postgres does not know the topic {topic.name}: run `spanfold migrate`")
            self._partitions[topic.name] = rows[0][0]
        return self._partitions[topic.name]

    async def answers(self, topic: Topic, appends: Sequence[JudgedAppend], within_s: float) -> list[Answer]:
        """What the log says to each of these appends: the first verdict on its event id."""
        statement, answer = (
            (CONDITIONAL_ANSWERS, _conditional_answer)
            if topic.kind is TopicKind.CONDITIONAL
            else (TELEMETRY_ANSWERS if topic.journaled else UNJOURNALED_ANSWERS, _telemetry_answer)
        )
        parameters = {
            "topic": topic.name,
            "partitions": [append.position.partition for append in appends],
            "offsets": [append.position.offset for append in appends],
            "aggregates": [append.aggregate_id for append in appends],
            "ids": [UUID(bytes=append.event_id) for append in appends],
            "days": [day_of(append.occurred_at) for append in appends],
        }
        rows = await self._postgres.rows(statement.format(journal=_table(topic)), parameters, within_s=within_s)
        return [answer(append, row) for append, row in zip(appends, rows, strict=True)]

    async def outcome(
        self, topic: Topic, partition: int, aggregate_id: str, event_id: bytes, within_s: float
    ) -> Answer | None:
        """The verdict on an event id of the aggregate; None if no record of it has been judged. OutcomeForgotten when one may
        have been that is let go of.
        """
        conditional = topic.kind is TopicKind.CONDITIONAL
        parameters = {
            "topic": topic.name, "partition": partition, "aggregate": aggregate_id, "id": UUID(bytes=event_id),
        }  # fmt: skip
        statement = (CONDITIONAL_OUTCOME if conditional else TELEMETRY_OUTCOME).format(journal=_journal(topic))
        rows = await self._postgres.rows(statement, parameters, within_s=within_s)
        if not rows:
            await refuse_forgotten(self._postgres, topic, partition, aggregate_id, event_id, within_s)
            return None
        verdict, offset, version, detail, head = rows[0]
        if verdict == "accepted":
            return Appended(version, Position(topic.name, partition, offset))
        return Conflict(aggregate_id, None, head) if verdict == "conflict" else Rejected(verdict, detail)

    async def read(
        self, topic: Topic, partition: int, aggregate_id: str, from_version: int, within_s: float
    ) -> JudgedHistory:
        """The accepted records of the aggregate after `from_version`, in one snapshot with the journal's position. Compacted
        when records of it may be among those that are let go of.
        """
        conditional = topic.kind is TopicKind.CONDITIONAL
        parameters = {
            "topic": topic.name, "partition": partition, "aggregate": aggregate_id, "from_version": from_version,
        }  # fmt: skip
        statement = (CONDITIONAL_EVENTS if conditional else TELEMETRY_EVENTS).format(journal=_journal(topic))
        rows = await self._postgres.rows(statement, parameters, within_s=within_s)
        if not rows:
            raise Misconfigured(f"{topic.name}/{partition} has no checkpoint: run `spanfold migrate`")
        next_offset, head, *_, gone_before = rows[0]
        if gone_before > from_version:
            head = max(head or 0, await refuse_gaps(self._postgres, parameters, gone_before, within_s))
        records = [_record(topic, partition, aggregate_id, row) for row in rows if row[2] is not None]
        return JudgedHistory(records, head or 0, next_offset)


def _record(topic: Topic, partition: int, aggregate_id: str, row: Row) -> JournalRecord:
    _, _, version, offset, log_time, payload, reason, detail, settled_as, _ = row
    parked = f"{reason}: {detail}" if reason is not None and settled_as is None else None
    position = Position(topic.name, partition, offset)
    return JournalRecord(aggregate_id, version, position, log_time, payload, parked, settled_as == "discarded")


def _conditional_answer(append: JudgedAppend, row: Row) -> Answer:
    verdict, offset, version, of_it, own_verdict, own_detail, head = row
    position = append.position
    if verdict is None:
        return _rejected(position, own_verdict, own_detail)
    if not of_it:
        return Rejected("duplicate", f"its event id was used before, for another aggregate, at offset {offset}")
    if verdict == "conflict":
        return Conflict(append.aggregate_id, append.expected_version, head)
    first = Position(position.topic, position.partition, offset)
    return Appended(version, first, repeated=first != position)


def _telemetry_answer(append: JudgedAppend, row: Row) -> Answer:
    verdict, detail, first_offset, of_it = row
    position = append.position
    if verdict is None:
        return Appended(position.offset + 1, position)
    if verdict != "duplicate":
        return _rejected(position, verdict, detail)
    if first_offset is None:
        return Rejected("duplicate", "its event id was used before, by a record that the journal keeps no more")
    if not of_it:
        return Rejected("duplicate", f"its event id was used before, for another aggregate, at offset {first_offset}")
    first = Position(position.topic, position.partition, first_offset)
    return Appended(first.offset + 1, first, repeated=True)


def _rejected(position: Position, verdict: str | None, detail: str | None) -> Rejected:
    if verdict is None:
        raise Misconfigured(f"the record at {position} was processed but has no verdict; wrong database?")
    return Rejected(verdict, detail or "")


def _table(topic: Topic) -> str:
    table = arbiter_of(topic).table
    return "" if table is None else f"{table.schema or CORE}.{table.name}"


def _journal(topic: Topic) -> str:
    table = _table(topic)
    if not table:
        raise InvalidInput(f"{topic.name} keeps no journal: its points are in the read models, such as {PUBLIC_POINTS}")
    return table


PUBLIC_POINTS: Final = "spanfold.metric_points"

PARTITIONS: Final = f"SELECT partitions FROM {CORE}.topics WHERE topic = %s"

CONDITIONAL_ANSWERS: Final = f"""
SELECT d.verdict, d.kafka_offset, d.version,
       CASE d.verdict WHEN 'accepted' THEN j.event_id IS NOT DISTINCT FROM a.event_id
                      ELSE r.aggregate_id = a.aggregate_id END AS of_it,
       r.verdict, r.detail, coalesce(h.version, 0)
  FROM unnest(%(partitions)s::int[], %(offsets)s::bigint[], %(aggregates)s::text[], %(ids)s::uuid[])
       WITH ORDINALITY AS a (partition, kafka_offset, aggregate_id, event_id, n)
  LEFT JOIN {CORE}.first_verdicts d
    ON (d.topic, d.partition, d.event_id) = (%(topic)s, a.partition, a.event_id)
  LEFT JOIN {{journal}} j
    ON d.verdict = 'accepted' AND (j.aggregate_id, j.version) = (a.aggregate_id, d.version)
  LEFT JOIN {CORE}.rejected r
    ON (r.topic, r.partition, r.kafka_offset) = (%(topic)s, a.partition, coalesce(d.kafka_offset, a.kafka_offset))
  LEFT JOIN {CORE}.heads h
    ON (h.topic, h.aggregate_id) = (%(topic)s, a.aggregate_id)
 ORDER BY a.n
"""

TELEMETRY_ANSWERS: Final = f"""
SELECT r.verdict, r.detail, j.kafka_offset, j.aggregate_id = a.aggregate_id AS of_it
  FROM unnest(%(partitions)s::int[], %(offsets)s::bigint[], %(aggregates)s::text[], %(ids)s::uuid[], %(days)s::date[])
       WITH ORDINALITY AS a (partition, kafka_offset, aggregate_id, event_id, day, n)
  LEFT JOIN {CORE}.rejected r
    ON (r.topic, r.partition, r.kafka_offset) = (%(topic)s, a.partition, a.kafka_offset)
  LEFT JOIN {{journal}} j
    ON r.verdict = 'duplicate' AND (j.day, j.partition, j.event_id) = (a.day, a.partition, a.event_id)
 ORDER BY a.n
"""

UNJOURNALED_ANSWERS: Final = f"""
SELECT r.verdict, r.detail, NULL::bigint, NULL::boolean
  FROM unnest(%(partitions)s::int[], %(offsets)s::bigint[]) WITH ORDINALITY AS a (partition, kafka_offset, n)
  LEFT JOIN {CORE}.rejected r
    ON (r.topic, r.partition, r.kafka_offset) = (%(topic)s, a.partition, a.kafka_offset)
 ORDER BY a.n
"""

_REJECTED_OUTCOME: Final = f"""
SELECT verdict, kafka_offset, NULL::bigint, detail, 0::bigint
  FROM {CORE}.rejected
 WHERE event_id = %(id)s AND verdict <> 'duplicate'
   AND (topic, partition, aggregate_id) = (%(topic)s, %(partition)s, %(aggregate)s)
 ORDER BY kafka_offset"""

CONDITIONAL_OUTCOME: Final = f"""
(SELECT d.verdict, d.kafka_offset, d.version, NULL::text AS detail, coalesce(h.version, 0) AS head
   FROM {CORE}.first_verdicts d
   LEFT JOIN {CORE}.heads h ON (h.topic, h.aggregate_id) = (d.topic, %(aggregate)s)
   LEFT JOIN {{journal}} j ON d.verdict = 'accepted' AND (j.aggregate_id, j.version) = (%(aggregate)s, d.version)
   LEFT JOIN {CORE}.rejected r ON (r.topic, r.partition, r.kafka_offset) = (d.topic, d.partition, d.kafka_offset)
  WHERE (d.topic, d.partition, d.event_id) = (%(topic)s, %(partition)s, %(id)s)
    AND (j.event_id = d.event_id OR r.aggregate_id = %(aggregate)s))
UNION ALL
({_REJECTED_OUTCOME})
LIMIT 1
"""

TELEMETRY_OUTCOME: Final = f"""
(SELECT 'accepted' AS verdict, j.kafka_offset, j.kafka_offset + 1 AS version, NULL::text AS detail, 0::bigint AS head
   FROM {{journal}} j
  WHERE (j.aggregate_id, j.partition, j.event_id) = (%(aggregate)s, %(partition)s, %(id)s)
  ORDER BY j.kafka_offset DESC)
UNION ALL
({_REJECTED_OUTCOME})
LIMIT 1
"""

_EVENTS: Final = f"""
SELECT c.next_offset, {{head}}, {{version}}, j.kafka_offset,
       (extract(epoch FROM j.log_time) * 1000000)::bigint, j.payload, p.reason, p.detail, p.settled_as,
       coalesce(g.complete_from_offset, 0)
  FROM {CORE}.checkpoints c
  LEFT JOIN {{journal}} j
    ON j.aggregate_id = %(aggregate)s AND j.partition = c.partition AND {{version}} > %(from_version)s
  LEFT JOIN {CORE}.parked p
    ON (p.topic, p.partition, p.kafka_offset) = (c.topic, c.partition, j.kafka_offset)
  LEFT JOIN {CORE}.journal_retention g
    ON (g.topic, g.partition) = (c.topic, c.partition)
 WHERE c.topic = %(topic)s AND c.partition = %(partition)s AND c.projection = '{JOURNAL}' AND c.generation = 0
 ORDER BY j.kafka_offset
"""

CONDITIONAL_EVENTS: Final = _EVENTS.format(
    head=f"(SELECT h.version FROM {CORE}.heads h WHERE (h.topic, h.aggregate_id) = (c.topic, %(aggregate)s))",
    version="j.version",
    journal="{journal}",
)

TELEMETRY_EVENTS: Final = _EVENTS.format(
    head="(SELECT max(k.kafka_offset) + 1 FROM {journal} k WHERE k.aggregate_id = %(aggregate)s"
    " AND k.partition = c.partition)",
    version="j.kafka_offset + 1",
    journal="{journal}",
)
