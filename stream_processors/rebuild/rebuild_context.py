"""What rebuild, verify, rollback, as-of and follow work with: one projection, and the right to be alone with its generations."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

import psycopg
from sqlalchemy import Engine

from spanfold.language.errors import Misconfigured
from spanfold.language.positions import NextOffsets
from spanfold.language.progress import ProgressListener
from spanfold.language.settings import Settings
from spanfold.language.topics import TopicOnBroker
from spanfold.postgres.connections import connect
from spanfold.postgres.engine import engine_of
from spanfold.projections.commit.journal import JOURNAL
from spanfold.projections.generation_states import GenerationState
from spanfold.projections.generations import lifecycle
from spanfold.projections.generations.lifecycle import GenerationRow
from spanfold.projections.generations.shadow import next_offsets_of
from spanfold.projections.projection import Projection
from spanfold.stream_processors.worker import gc_tuning


@dataclass(frozen=True, slots=True)
class RebuildContext:
    """One projection of one installation. `control` is a session that holds the advisory lock on the projection's generations;
    `topics` are those on the broker, by their names without the prefix.
    """

    settings: Settings
    dsn: str
    engine: Engine
    control: psycopg.Connection[Any]
    projection: Projection
    topics: Mapping[str, TopicOnBroker]
    progress: ProgressListener

    def generations(self, *states: GenerationState) -> list[GenerationRow]:
        """The projection's generations in these states, all without one; oldest first."""
        with self.engine.begin() as connection:
            return lifecycle.generations_of(connection, self.projection.name, *states)

    def newest(self, *states: GenerationState) -> GenerationRow | None:
        """The newest generation in one of these states."""
        return next(reversed(self.generations(*states)), None)

    def drop(self, generation: GenerationRow) -> None:
        """Drop a generation that is not live, with its tables; see lifecycle.drop_generation."""
        with self.engine.begin() as connection:
            lifecycle.drop_generation(connection, self.projection.name, generation)

    def next_offsets(self, generation: GenerationRow) -> NextOffsets:
        """Where the generation stands."""
        return next_offsets_of(self.control, self.projection.name, generation.number)

    def judged(self) -> NextOffsets:
        """How far the records of the projection's topics have been judged."""
        names = {topic.name for topic in self.projection.topics}
        journal = next_offsets_of(self.control, JOURNAL, 0)
        return {partition: end for partition, end in journal.items() if partition[0] in names}


@contextmanager
def rebuild_context(
    settings: Settings,
    dsn: str,
    topics: Mapping[str, TopicOnBroker],
    projection: Projection,
    progress: ProgressListener,
    tablespace: str = "",
) -> Iterator[RebuildContext]:
    """Alone with the generations of this projection until the block ends. `topics` include the projection's; new tables go to the
    tablespace. Misconfigured when another process is at work on them.
    """
    settings_of_sessions = {"default_tablespace": tablespace} if tablespace else {}
    engine = engine_of(dsn, "spanfold rebuild", **settings_of_sessions)
    gc_tuning.tune()
    key = f"spanfold rebuild {projection.name}"
    with session_lock(dsn, key, lambda holder: _busy(projection.name, holder)) as control:
        yield RebuildContext(settings, dsn, engine, control, projection, topics, progress)


def _busy(projection: str, holder: str) -> str:
    return (
        f"{projection} is being rebuilt, verified, rolled back, loaded as of a time or pruned already, by the Postgres "
        f"session of {holder}: wait for it, or end it first"
    )


@contextmanager
def session_lock(dsn: str, key: str, busy: Callable[[str], str]) -> Iterator[psycopg.Connection[Any]]:
    """A session that holds this advisory lock until the block ends, and that shows the key as its application name.
    Misconfigured with the words of `busy` about who holds it already.
    """
    with connect(dsn, key) as session:
        if session.execute(LOCK, (key,)).fetchone() != (True,):
            holder = session.execute(HOLDER, (key,)).fetchone()
            raise Misconfigured(busy("another session" if holder is None else "pid {} on {}, since {}".format(*holder)))
        try:
            yield session
        finally:
            # at once: a session ends some time after it was left
            with suppress(psycopg.Error):
                session.execute("SELECT pg_advisory_unlock_all()")


LOCK: Final = "SELECT pg_try_advisory_lock(hashtextextended(%s, 0))"

HOLDER: Final = """
SELECT a.pid, coalesce(host(a.client_addr), 'this machine'), to_char(a.backend_start, 'HH24:MI:SS')
  FROM pg_locks l
  JOIN pg_stat_activity a USING (pid)
 WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
   AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
   AND (l.classid::bigint << 32 | l.objid::bigint) = hashtextextended(%s, 0)
"""
