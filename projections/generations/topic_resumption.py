"""Takes the mark off a suspended topic: workers go on with it where its checkpoints stand."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from psycopg import Connection, Cursor

from spanfold.application.aggregates import installed_aggregates
from spanfold.language.errors import Misconfigured
from spanfold.projections.commit.journal import CORE, JOURNAL
from spanfold.projections.generation_states import KEPT_UP, sql_list
from spanfold.projections.states.rows import SNAPSHOTS

Bounds = Mapping[int, tuple[int, int]]
"""By partition: the first offset that the log still has, and the one after the last."""


@dataclass(frozen=True, slots=True)
class LogGap:
    """The offsets [from_offset, to_offset) of a partition, which the log lost before this generation of a projection, or the
    journal or the snapshots, had folded them.
    """

    topic: str
    partition: int
    projection: str
    generation: int
    from_offset: int
    to_offset: int


def resume_topic(
    connection: Connection[Any], topic: str, bounds: Bounds, *, park: bool, accept_loss: bool
) -> Sequence[LogGap]:
    """Resume the topic, in one transaction. With `park`, records that the log holds now may be parked, whatever their share is.
    With `accept_loss`, checkpoints that lie before the log's begin are moved there; of a topic that is not suspended, only those
    of states and suspended projections. Returns what is lost by that.

    Misconfigured when the topic is not suspended and these have lost nothing either, when checkpoints lie before the log and that
    is not accepted, or when one lies beyond its end: nothing was changed.
    """
    with connection.transaction(), connection.cursor() as cursor:
        row = cursor.execute(LOCK_TOPIC, (topic,)).fetchone()
        is_suspended = row is not None and row[0] is not None
        gaps = _gaps(cursor, topic, bounds, is_suspended=is_suspended) if is_suspended or accept_loss else []
        if not is_suspended and not gaps:
            raise Misconfigured(f"{topic} is not suspended: nothing to resume")
        if gaps and not accept_loss:
            raise Misconfigured(
                f"the log of {topic} has lost records: {_words(gaps)}. Restore the log, or go on without them with "
                f"`spanfold resume {topic} --accept-loss`. Nothing was changed."
            )
        for gap in gaps:
            where = (gap.topic, gap.partition, gap.projection, gap.generation)
            cursor.execute(ADD_GAP, (*where, gap.from_offset, gap.to_offset))
            cursor.execute(MOVE, (gap.to_offset, *where))
        ends = [(topic, partition, end if park else 0) for partition, (_, end) in bounds.items()]
        cursor.executemany(COUNT_ANEW, ends)
        cursor.execute(RESUME, (topic,))
    return gaps


def _gaps(cursor: Cursor[Any], topic: str, bounds: Bounds, *, is_suspended: bool) -> list[LogGap]:
    # checkpoints of other fold versions stay where they were: nobody reads on from there
    fold_versions = [one.fold_version for one in installed_aggregates().values() if one.topic.name == topic]
    gaps = []
    cursor.execute(CHECKPOINTS, {"topic": topic, "fold_versions": fold_versions, "is_suspended": is_suspended})
    for partition, projection, generation, offset in cursor.fetchall():
        first, last = bounds[partition]
        if is_suspended and offset > last:  # others move on meanwhile
            raise Misconfigured(
                f"{topic}/{partition} holds offsets {first} to {last}, {projection} stands at {offset}: the log would give these "
                "offsets to other records. Restore the log, or fold it into an empty database. Nothing was changed."
            )
        if offset < first:
            gaps.append(LogGap(topic, partition, projection, generation, offset, first))
    return gaps


def _words(gaps: Sequence[LogGap]) -> str:
    return "; ".join(
        f"{gap.topic}/{gap.partition} from {gap.from_offset} to {gap.to_offset - 1} for {gap.projection}"
        for gap in gaps
    )


LOCK_TOPIC: Final = f"SELECT suspended_at FROM {CORE}.topics WHERE topic = %s FOR NO KEY UPDATE"

CHECKPOINTS: Final = f"""
SELECT c.partition, c.projection, c.generation, c.next_offset
  FROM {CORE}.checkpoints c
  LEFT JOIN {CORE}.generations g USING (projection, generation)
 WHERE c.topic = %(topic)s
   AND (c.projection = '{JOURNAL}'
        OR (c.projection = '{SNAPSHOTS}' AND c.generation = ANY (%(fold_versions)s))
        OR g.state IN {sql_list(KEPT_UP)})
   AND (%(is_suspended)s OR c.projection = '{SNAPSHOTS}' OR g.suspended_at IS NOT NULL)
 ORDER BY c.partition, c.projection, c.generation
   FOR UPDATE OF c
"""

ADD_GAP: Final = f"""
INSERT INTO {CORE}.log_gaps (topic, partition, projection, generation, from_offset, to_offset) VALUES (%s, %s, %s, %s, %s, %s)
"""

MOVE: Final = f"""
UPDATE {CORE}.checkpoints c SET next_offset = %s
 WHERE topic = %s AND partition = %s AND projection = %s AND generation = %s
"""

COUNT_ANEW: Final = f"""
INSERT INTO {CORE}.parked_shares AS s (topic, partition, records, parked, permitted_below) VALUES (%s, %s, 0, 0, %s)
ON CONFLICT (topic, partition) DO UPDATE
   SET records = 0, parked = 0, permitted_below = greatest(s.permitted_below, excluded.permitted_below)
"""

RESUME: Final = f"UPDATE {CORE}.topics SET suspended_at = NULL, suspended_because = NULL WHERE topic = %s"
