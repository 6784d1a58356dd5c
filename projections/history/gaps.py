"""What reads of a journal answer where days of it have been let go of: nothing is left out without a word."""

from collections.abc import Mapping
from datetime import date, timedelta
from typing import Any, Final

from spanfold.application.event_store import Compacted, OutcomeForgotten
from spanfold.language.ids import time_of
from spanfold.language.topics import US_PER_DAY, Topic
from spanfold.postgres.pool import Postgres
from spanfold.projections.commit.journal import CORE
from spanfold.projections.states.rows import SNAPSHOTS

_EPOCH: Final = date(1970, 1, 1)


async def refuse_gaps(postgres: Postgres, read: Mapping[str, Any], gone_before: int, within_s: float) -> int:
    """Compacted when the aggregate may have records after the version that it was asked from, below this offset; they are gone.
    What the snapshot worker keeps may show that it has none: then its version by that. `read` has the parameters of a read of
    events.
    """
    ((version,),) = await postgres.rows(COVERED, {**read, "before": gone_before}, within_s=within_s)
    if version is None:
        raise Compacted(read["aggregate"], read["from_version"], gone_before + 1)
    return int(version)


async def refuse_forgotten(
    postgres: Postgres, topic: Topic, partition: int, aggregate_id: str, event_id: bytes, within_s: float
) -> None:
    """OutcomeForgotten when the event may be of a day that is gone: by the time in its id. One that tells none may be of any."""
    rows = await postgres.rows(KEPT_FROM_DAY, (topic.name, partition), within_s=within_s)
    happened = time_of(event_id)
    if rows and (happened is None or day_of(happened) < rows[0][0]):
        raise OutcomeForgotten(aggregate_id, event_id)


def day_of(occurred_at: int) -> date:
    """The event's day; the first one for what Python can't say, where no record was accepted."""
    try:
        return _EPOCH + timedelta(days=occurred_at // US_PER_DAY)
    except OverflowError:
        return date.min


KEPT_FROM_DAY: Final = f"SELECT kept_from_day FROM {CORE}.journal_retention WHERE (topic, partition) = (%s, %s)"

COVERED: Final = f"""
SELECT max(k.version)
  FROM {CORE}.checkpoints c
 CROSS JOIN LATERAL (
       SELECT greatest(
              coalesce((SELECT s.version FROM {CORE}.snapshots s
                         WHERE (s.topic, s.aggregate_id, s.fold_version) = (c.topic, %(aggregate)s, c.generation)), 0),
              coalesce((SELECT s.version FROM {CORE}.states s
                         WHERE (s.topic, s.aggregate_id, s.fold_version) = (c.topic, %(aggregate)s, c.generation)), 0)
              ) AS version) k
 WHERE (c.topic, c.partition, c.projection) = (%(topic)s, %(partition)s, '{SNAPSHOTS}')
   AND c.next_offset >= %(before)s
   AND k.version <= %(from_version)s
   AND NOT EXISTS (
       SELECT FROM {CORE}.parked p
        WHERE (p.topic, p.partition, p.aggregate_id) = (c.topic, c.partition, %(aggregate)s)
          AND p.kafka_offset < %(before)s AND (p.settled_offset IS NULL OR p.settled_offset >= c.next_offset))
"""
"""The aggregate's version by what the snapshot worker keeps, if that shows that it has no record after the version asked from
and below the offset; else null.
"""
