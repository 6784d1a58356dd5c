"""Where a worker of the tests dies or stops: at a named point, when it is told to.

FAULTS_FOLDER names the worker's folder. A line `point n signal topic` in its file `arm` makes the worker send itself that signal
when it is at that point for the n-th time from then on, with records of that topic; before that it renames the file to `bit`.
Each batch that it tries to commit is a line in the file `attempts`: topic, partition, start, end, nanoseconds. FAULTS_WITHOUT
names protections to leave out.
"""

import os
import signal
import time
from pathlib import Path
from typing import Final

from spanfold.projections.commit.batch import Batch, Outcome
from spanfold.stream_processors.worker.committer import Committer, P

FOLDER: Final = Path(os.environ["FAULTS_FOLDER"])
WITHOUT: Final = os.environ.get("FAULTS_WITHOUT", "").split()


class Trap:
    """Reads what the test wants to happen next."""

    def __init__(self) -> None:
        self._armed = FOLDER / "arm"
        self._seen = 0

    def reached(self, point: str, topic: str | None) -> None:
        """Called at each named point; `topic` is that of the records at hand, if there are any."""
        try:
            where, number, signal_name, wanted = self._armed.read_text().split()
        except FileNotFoundError:
            return
        self._seen += (where, wanted) == (point, topic)
        if self._seen >= int(number):
            self._seen = 0
            self._armed.rename(FOLDER / "bit")
            os.kill(os.getpid(), signal.Signals[signal_name])


TRAP: Final = Trap()


def note_attempt(batch: Batch) -> None:
    """Tell that the batch is about to be committed."""
    with (FOLDER / "attempts").open("a") as attempts:
        attempts.write(f"{batch.topic.name} {batch.partition} {batch.start} {batch.end} {time.time_ns()}\n")


class WatchedCommitter(Committer[P]):
    """Stops between a commit and its acknowledgement."""

    async def commit(self, prepared: P) -> list[Outcome]:
        outcomes = await super().commit(prepared)
        batch = prepared.batch
        TRAP.reached("before_ack", batch.topic.name if batch else None)
        return outcomes
