"""What a generation that takes over has to wait for: commits and readers that are in the way, and old snapshots."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Engine

from spanfold.postgres.retries import pause_behind_locks
from spanfold.projections.generations.lifecycle import GenerationRow
from spanfold.projections.generations.swap import FoldRest, Postponed, Session, readers, snapshots
from spanfold.projections.projection import Projection
from spanfold.stream_processors.rebuild.generation_loader import GenerationLoader
from spanfold.stream_processors.rebuild.rebuild_context import RebuildContext

Step = Callable[[Engine, Projection, GenerationRow, FoldRest], float]
"""`hand_over` or `swap`."""

_PAUSE_S: Final = 0.2

_NAMED_AFTER_S: Final = 1.0
"""A session whose transaction is younger is not named: it is about to end."""


@dataclass(frozen=True, slots=True)
class Waits:
    """The longest time for which commits were blocked (s), and the sessions that were waited for."""

    blocked_s: float = 0.0
    sessions: tuple[str, ...] = ()

    def __add__(self, other: "Waits") -> "Waits":
        return Waits(max(self.blocked_s, other.blocked_s), tuple(dict.fromkeys(self.sessions + other.sessions)))


def when_possible(step: Step, context: RebuildContext, loader: GenerationLoader, generation: GenerationRow) -> Waits:
    """Catch up with the log and do the step, again while others are in the way."""
    waits = Waits()
    while True:
        loader.catch_up()
        try:
            return waits + Waits(step(context.engine, context.projection, generation, loader.fold_rest))
        except Postponed as error:
            waits += Waits(error.blocked_s)
            if error.log_unavailable:
                context.progress.step(f"trying again: {error}")
            else:
                waits += _name(context, readers(context.control, context.projection))
                pause_behind_locks()


def wait_for_old_snapshots(context: RebuildContext, loader: GenerationLoader) -> Waits:
    """Wait until no transaction sees the database as it is now; keep up with the log meanwhile."""
    waits = Waits()
    old = {_identity(session) for session in snapshots(context.control)}
    while old:
        still = [session for session in snapshots(context.control) if _identity(session) in old]
        old = {_identity(session) for session in still}
        waits += _name(context, still)
        loader.catch_up()
        if old:
            time.sleep(_PAUSE_S)
    return waits


def _identity(session: Session) -> tuple[int, str, str]:
    return session.pid, session.since, session.snapshot


def _name(context: RebuildContext, sessions: Sequence[Session]) -> Waits:
    """Name those that have been there for longer than a moment."""
    lasting = tuple(str(session) for session in sessions if session.age_s > _NAMED_AFTER_S)
    context.progress.waiting(lasting)
    return Waits(sessions=lasting)
