"""`python -m tests.faults.worker`: the projector as `spanfold worker projector` runs it, which can be told to die or to stop at
a named point (see trap.py), or to do without a protection. It differs from production by what is replaced here, and by nothing
else.

FAULTS_FICKLE adds the projection of fickle.py. FAULTS_WITHOUT takes `compare` (neither the checkpoint's lock nor its compare) and
`duplicates` (the journal's judgement).
"""

import os
from typing import Any

from spanfold.bootstrap import run_projector
from spanfold.language.settings import settings
from spanfold.projections import projection
from spanfold.projections.commit import store as store_module
from spanfold.projections.commit.batch import Outcome
from spanfold.projections.commit.journal import Journal
from spanfold.projections.commit.merging import Generation
from spanfold.projections.commit.preparing import Prepared
from spanfold.projections.commit.store import Store
from spanfold.stream_processors.worker import committer, waiting
from tests.faults.fickle import NAME, Fickle
from tests.faults.trap import TRAP, WITHOUT, WatchedCommitter, note_attempt


class WatchedStore(Store):
    """Tells what it tries; the parts that a batch is cut into are not told of again."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.topic: str | None = None
        self._cut = False
        self.reached = lambda step: TRAP.reached(step, self.topic)

    def commit(self, connection: Any, prepared: Prepared) -> list[Outcome]:
        batch = prepared.batch
        is_part, self._cut = self._cut, True
        if not is_part:
            note_attempt(batch)
        self.topic = batch.topic.name if batch else None
        self.reached("before_begin")
        try:
            return super().commit(connection, prepared)
        finally:
            self._cut = is_part


def main() -> None:
    """Replace, then run what `spanfold worker projector` runs."""
    vars(store_module).update(Store=WatchedStore)
    vars(committer).update(Committer=WatchedCommitter)
    if os.environ.get("FAULTS_FICKLE"):
        projections = {**projection.installed(), NAME: Fickle()}
        vars(projection).update(installed=lambda: projections)
        vars(waiting).update(installed=lambda: projections)
    if "compare" in WITHOUT:
        _without_compare()
    if "duplicates" in WITHOUT:
        _without_duplicates()
    run_projector(settings())


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
