"""Which of a trace's records may have been pruned."""

from dataclasses import dataclass
from datetime import date
from typing import Final

from psycopg.rows import class_row

from spanfold.language.partitioning import partitions_of
from spanfold.language.topics import TRACES
from spanfold.operations.reading import reading


@dataclass(frozen=True, slots=True)
class Pruned:
    """Of `partition`, records below this offset may be gone: those of events that happened before that day (UTC)."""

    partition: int
    complete_from_offset: int
    kept_from_day: date

    def __str__(self) -> str:
        return (
            f"events from before {self.kept_from_day} have been pruned: of partition {self.partition}, records below offset "
            f"{self.complete_from_offset} may be missing here"
        )


def pruned_of(dsn: str, trace_id: str) -> Pruned | None:
    """What has been pruned in the trace's partition; None if nothing has."""
    topic = {"topic": TRACES.name}
    with reading(dsn, "spanfold trace") as connection, connection.cursor(row_factory=class_row(Pruned)) as cursor:
        by_partition = {pruned.partition: pruned for pruned in cursor.execute(RETENTION, topic)}
        if not by_partition:
            return None
        ((partitions,),) = connection.execute(PARTITIONS, topic).fetchall()
    return by_partition.get(int(partitions_of([trace_id.encode()], partitions)[0]))


RETENTION: Final = (
    "SELECT partition, complete_from_offset, kept_from_day FROM spanfold.journal_retention WHERE topic = %(topic)s"
)

PARTITIONS: Final = "SELECT count(DISTINCT partition) FROM spanfold.checkpoints WHERE topic = %(topic)s"
"""Every partition has a checkpoint from the beginning."""
