"""`python -m tests.faults.worker`: the projector as `spanfold worker projector` runs it, which can be told to die or to stop at
a named point, or to do without a protection. It differs from production by what is replaced here, and by nothing else.

FAULTS_FOLDER names a folder. A line `point n signal topic` in its file `arm` makes the worker send itself that signal when
it is at that point for the n-th time from then on, with records of that topic; before that it renames the file to `bit`. Each
batch that it tries to commit is a line in the file `attempts`: topic, partition, start, end, nanoseconds. FAULTS_WITHOUT names
protections to leave out: `compare` (neither the checkpoint's lock nor its compare) and `duplicates` (the journal's judgement).
"""

import os
import signal
import time
from pathlib import Path
from typing import Any, Final

from projections import store as store_module
from projections.journal import Journal
from projections.merging import Generation
from projections.preparing import Prepared
from projections.store import Outcome, Store
from spanfold.settings import settings
from stream_processors import worker
from stream_processors.committer import Committer

FOLDER: Final = Path(os.environ["FAULTS_FOLDER"])
WITHOUT: Final = os.environ.get("FAULTS_WITHOUT", "").split()
POINTS: Final = ("before_begin", "before_merge", "before_commit", "before_ack")


class Trap:
    """Reads what the test wants to happen next."""

    def __init__(self) -> None:
        self._armed = FOLDER / "arm"
        self._seen = 0
        self.topic: str | None = None
        """Of the records that are being committed, if there are any."""

    def reached(self, point: str) -> None:
        """Called at each named point."""
        if not self._armed.exists():
            return
        where, number, signal_name, topic = self._armed.read_text().split()
        self._seen += (where, topic) == (point, self.topic)
        if self._seen >= int(number):
            self._seen = 0
            self._armed.rename(FOLDER / "bit")
            os.kill(os.getpid(), signal.Signals[signal_name])


TRAP: Final = Trap()


class WatchedStore(Store):
    """Tells what it tries."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.reached = TRAP.reached

    def commit(self, connection: Any, prepared: Prepared) -> list[Outcome]:
        batch = prepared.judged.batch
        with (FOLDER / "attempts").open("a") as attempts:
            attempts.write(f"{batch.topic.name} {batch.partition} {batch.start} {batch.end} {time.time_ns()}\n")
        TRAP.topic = batch.topic.name if batch else None
        TRAP.reached("before_begin")
        return super().commit(connection, prepared)


class WatchedCommitter(Committer):
    """Stops between a commit and its acknowledgement."""

    async def commit(self, prepared: Prepared) -> list[Outcome]:
        outcomes = await super().commit(prepared)
        TRAP.reached("before_ack")
        return outcomes


def main() -> None:
    """Replace, then run what `spanfold worker projector` runs."""
    vars(worker).update(Store=WatchedStore, Committer=WatchedCommitter)
    if "compare" in WITHOUT:
        _without_compare()
    if "duplicates" in WITHOUT:
        _without_duplicates()
    worker.run_projector(settings())


def _without_compare() -> None:
    """Every batch is taken for new, whatever the checkpoints say; nobody waits for anybody."""
    lock = Store._lock

    def believe(self: Store, cursor: Any, batch: Any) -> tuple[int, list[Generation]]:
        _, generations = lock(self, cursor, batch)
        return batch.start, [Generation(each.projection, each.number, each.schema, batch.start) for each in generations]

    store_module.LOCK_CHECKPOINTS = store_module.LOCK_CHECKPOINTS.replace("FOR UPDATE", "")  # type: ignore[misc]
    Store._lock = believe  # type: ignore[method-assign]


def _without_duplicates() -> None:
    """The journal accepts everything: what it holds already it leaves as it is, and does not tell."""
    accept_new = Journal._accept_new

    def accept(self: Journal, cursor: Any, judged: Any, indexes: Any) -> set[int]:
        accept_new(self, cursor, judged, indexes)
        return set()

    Journal._accept = accept  # type: ignore[method-assign]


if __name__ == "__main__":
    main()
