"""Who still needs the log, and from where: everybody whose checkpoint says how far it has read a partition."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from psycopg import Connection

from spanfold.application.aggregates import Aggregate
from spanfold.projections.commit.journal import CORE, JOURNAL
from spanfold.projections.generation_states import KEPT_UP, GenerationState, sql_list
from spanfold.projections.states.rows import SNAPSHOTS


@dataclass(frozen=True, slots=True)
class ReaderPosition:
    """How far somebody has read a partition: below `next_offset`. `log_time` is that of the last record it read, in µs since 1970
    UTC, None before the first. `owner` is a projection, JOURNAL or SNAPSHOTS.
    """

    topic: str
    partition: int
    owner: str
    generation: int
    state: str | None
    next_offset: int
    log_time: int | None

    def __str__(self) -> str:
        if self.owner == JOURNAL:
            return f"the journal is at {self.next_offset}"
        if self.owner == SNAPSHOTS:
            return f"the snapshot worker (fold version {self.generation}) is at {self.next_offset}"
        return f"generation {self.owner}/{self.generation} ({self.state}) is at {self.next_offset}"


def log_readers(connection: Connection[Any], aggregates: Iterable[type[Aggregate[Any]]]) -> list[ReaderPosition]:
    """Where everybody stands who needs the log: the journal, every generation that is folded or loaded, and the snapshot worker
    of these aggregates, at 0 where it has not begun. Generations at rest need nothing more.
    """
    folds = [(each.topic.name, each.fold_version) for each in aggregates]
    parameters = {"topics": [topic for topic, _ in folds], "versions": [version for _, version in folds]}
    return [ReaderPosition(*row) for row in connection.execute(LOG_READERS, parameters)]


def last_judged(readers: Iterable[ReaderPosition]) -> int | None:
    """The log time (µs) of the last record that was judged on any topic; None before the first."""
    times = [reader.log_time for reader in readers if reader.owner == JOURNAL and reader.log_time is not None]
    return max(times, default=None)


LOG_READERS: Final = f"""
SELECT c.topic, c.partition, c.projection, c.generation, g.state, c.next_offset,
       (extract(epoch FROM c.log_time) * 1000000)::bigint
  FROM {CORE}.checkpoints c
  LEFT JOIN {CORE}.generations g USING (projection, generation)
 WHERE (c.projection, c.generation) = ('{JOURNAL}', 0) OR g.state IN {sql_list((*KEPT_UP, GenerationState.LOADING))}
 UNION ALL
SELECT t.topic, p.partition, '{SNAPSHOTS}', a.fold_version, NULL, coalesce(c.next_offset, 0),
       (extract(epoch FROM c.log_time) * 1000000)::bigint
  FROM unnest(%(topics)s::text[], %(versions)s::integer[]) AS a (topic, fold_version)
  JOIN {CORE}.topics t USING (topic)
 CROSS JOIN LATERAL generate_series(0, t.partitions - 1) AS p (partition)
  LEFT JOIN {CORE}.checkpoints c
    ON (c.topic, c.partition, c.projection, c.generation) = (t.topic, p.partition, '{SNAPSHOTS}', a.fold_version)
 ORDER BY 1, 2, 3, 4
"""
