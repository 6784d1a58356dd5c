"""Which of a trace's records may have been pruned."""

from dataclasses import dataclass
from datetime import date
from typing import Final

from psycopg.rows import class_row

from spanfold.cli.sql import reading
from spanfold.language.partitioning import partitions_of
from spanfold.language.topics import TRACES


@dataclass(frozen=True, slots=True)
class Gone:
    """Of `partition`, records below this offset may be gone: those of events that happened before that day (UTC)."""

    partition: int
    complete_from_offset: int
    kept_from_day: date

    def __str__(self) -> str:
        return (
            f"events from before {self.kept_from_day} have been pruned: of partition {self.partition}, records below offset "
            f"{self.complete_from_offset} may be missing here"
        )


def gone(dsn: str, trace_id: str) -> Gone | None:
    """What has been pruned in the trace's partition; None if nothing has."""
    topic = {"topic": TRACES.name}
    with reading(dsn) as connection, connection.cursor(row_factory=class_row(Gone)) as cursor:
        found = {each.partition: each for each in cursor.execute(LET_GO, topic)}
        if not found:
            return None
        ((partitions,),) = connection.execute(PARTITIONS, topic).fetchall()
    return found.get(int(partitions_of([trace_id.encode()], partitions)[0]))


LET_GO: Final = (
    "SELECT partition, complete_from_offset, kept_from_day FROM spanfold.journal_retention WHERE topic = %(topic)s"
)

PARTITIONS: Final = "SELECT count(DISTINCT partition) FROM spanfold.checkpoints WHERE topic = %(topic)s"
"""Every partition has a checkpoint from the beginning."""
