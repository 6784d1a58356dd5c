"""The generations of each projection: state, fold version, position, how far behind, size."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from psycopg.rows import dict_row

from spanfold.operations.installation import Installation
from spanfold.operations.reading import reading
from spanfold.projections.projection import Projection, installed, why_not_from_states


@dataclass(frozen=True, slots=True)
class GenerationStatus:
    """A generation. `next_offsets` are those of the partitions of each topic, from partition 0 on; `behind` counts judged records
    that it has not folded; `carried_fold_version` is that of this code, None where it lacks the projection; `from_snapshot` says
    whether a rebuild from snapshots can make it, or why not.
    """

    projection: str
    generation: int
    state: str
    fold_version: int
    next_offsets: Mapping[str, Sequence[int]] | None
    behind: int
    log_time: datetime | None
    bytes: int
    created_at: datetime
    carried_fold_version: int | None
    from_snapshot: str


def list_generations(installation: Installation) -> Sequence[GenerationStatus]:
    """All generations, by projection and number. Misconfigured when the database is not prepared, StoreUnavailable."""
    with (
        reading(installation.dsn, "spanfold projections") as connection,
        connection.cursor(row_factory=dict_row) as cursor,
    ):
        rows = cursor.execute(GENERATIONS).fetchall()
    carried = installed()
    return [
        GenerationStatus(
            **row,
            carried_fold_version=projection.fold_version if projection else None,
            from_snapshot=_from_snapshot(projection),
        )
        for row in rows
        for projection in (carried.get(row["projection"]),)
    ]


def _from_snapshot(projection: Projection | None) -> str:
    if projection is None:
        return "unknown here"
    why_not = why_not_from_states(projection)
    return f"no: {why_not}" if why_not else "yes"


GENERATIONS: Final = """
SELECT p.projection, p.generation, p.state, p.fold_version, at.next_offsets, p.behind, p.log_time, p.bytes, p.created_at
  FROM spanfold.projections p
  LEFT JOIN (SELECT projection, generation, jsonb_object_agg(topic, next_offsets) AS next_offsets
               FROM (SELECT projection, generation, topic, jsonb_agg(next_offset ORDER BY partition) AS next_offsets
                       FROM spanfold.checkpoints
                      GROUP BY 1, 2, 3) AS topics
              GROUP BY 1, 2) AS at USING (projection, generation)
 ORDER BY p.projection, p.generation
"""
