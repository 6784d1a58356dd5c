"""`python -m tests.faults.snapshot_worker`: the same of `spanfold worker snapshots`; see trap.py and process.py.

FAULTS_WITHOUT takes `compare` (neither the checkpoint's lock nor its compare) and `fencing` (each process feeds the compacted
topic under a transactional.id of its own). What the feeder is about to send is told in the file `feeding`: topic, partition,
and the sequence up to which the topic has it.
"""

import os
from typing import Any

from confluent_kafka import Producer
from psycopg import Connection, Cursor

from spanfold.bootstrap import run_snapshot_worker
from spanfold.language.settings import settings
from spanfold.projections import states
from spanfold.projections.commit import checkpoints
from spanfold.projections.commit.batch import Batch, Outcome
from spanfold.projections.states import NotJudgedYet, PreparedStates, StateStore, rows
from spanfold.projections.states.feeding import Fed
from spanfold.projections.states.rows import FoldedPartition
from spanfold.stream_processors.snapshots import feeder
from spanfold.stream_processors.worker import committer
from tests.faults.trap import FOLDER, TRAP, WITHOUT, WatchedCommitter, note_attempt


class WatchedStateStore(StateStore):
    """Tells what it tries."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.topic: str | None = None
        self.waiting: PreparedStates | None = None
        self.reached = lambda step: TRAP.reached(step, self.topic)

    def commit(self, connection: Connection[Any], prepared: PreparedStates) -> list[Outcome]:
        batch = prepared.batch
        if prepared is not self.waiting:
            note_attempt(batch)
        self.topic = batch.topic.name if batch else None
        self.reached("before_begin")
        try:
            return super().commit(connection, prepared)
        except NotJudgedYet:
            # it comes again soon, and nobody has delivered it a second time
            self.waiting = prepared
            raise


class WatchedFeeder(feeder.Feeder):
    """Tells what it is about to feed."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.topic: str | None = None
        self.reached = lambda step: TRAP.reached(step, self.topic)

    def _feed(self, connection: Connection[Any], fed: Fed) -> Fed | None:
        self.topic = fed.topic
        (FOLDER / "feeding").write_text(f"{fed.topic} {fed.partition} {fed.sequence}")
        return super()._feed(connection, fed)


def main() -> None:
    """Replace, then run what `spanfold worker snapshots` runs."""
    vars(states).update(StateStore=WatchedStateStore)
    vars(committer).update(Committer=WatchedCommitter)
    vars(feeder).update(Feeder=WatchedFeeder)
    if "compare" in WITHOUT:
        _without_compare()
    if "fencing" in WITHOUT:
        _without_fencing()
    run_snapshot_worker(settings())


def _without_compare() -> None:
    """Every batch is taken for new once it is judged, whatever the checkpoint says; nobody waits for anybody."""

    def believe(self: StateStore, cursor: Cursor[Any], folded: FoldedPartition, batch: Batch) -> int:
        standing = rows.lock(cursor, folded)
        assert standing
        if batch.end > standing[1]:
            raise NotJudgedYet(batch, standing[1])
        return batch.start

    checkpoints.LOCK = checkpoints.LOCK.replace("FOR UPDATE OF c", "")  # type: ignore[misc]
    StateStore._turn = believe  # type: ignore[method-assign]


def _without_fencing() -> None:
    """Whoever feeds a partition does not hear of another that does."""

    def unfenced(config: dict[str, Any]) -> Producer:
        return Producer(config | {"transactional.id": f"{config['transactional.id']}-{os.getpid()}"})

    vars(feeder).update(Producer=unfenced)


if __name__ == "__main__":
    main()
