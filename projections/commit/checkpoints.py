"""The checkpoint of one generation in one partition, beside the journal's. Snapshots' generations are fold versions."""

from typing import Any, Final, cast

from psycopg import Cursor

from spanfold.projections.commit.journal import CORE, JOURNAL


def lock_checkpoint(
    cursor: Cursor[Any], topic: str, partition: int, owner: str, generation: int
) -> tuple[int, int] | None:
    """Lock the owner's checkpoint until the transaction ends. Returns its next offset, and up to where the partition's records
    are judged; None when nobody has registered it.
    """
    cursor.execute(LOCK, (topic, partition, owner, generation))
    return cast(tuple[int, int] | None, cursor.fetchone())


LOCK: Final = f"""
SELECT c.next_offset, j.next_offset
  FROM {CORE}.checkpoints c
  JOIN {CORE}.checkpoints j ON (j.topic, j.partition, j.projection) = (c.topic, c.partition, '{JOURNAL}')
 WHERE c.topic = %s AND c.partition = %s AND c.projection = %s AND c.generation = %s
   FOR UPDATE OF c
"""
