"""Makes a generation that has been loaded the live one, while workers fold and people query.

Two steps, each one transaction. `hand_over` folds what the generation lacks and has the workers keep it up to date from
there on: then no snapshot shows it behind the live one. When all snapshots from before have ended, `swap` points the views at it.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, cast

import psycopg
from psycopg import errors
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from spanfold.language.errors import SpanfoldError
from spanfold.projections.commit.journal import CORE, JOURNAL
from spanfold.projections.generations.lifecycle import GenerationRow, alone, live_generation, set_state
from spanfold.projections.generations.shadow import Positions
from spanfold.projections.generations.views import show
from spanfold.projections.projection import Projection

FoldRest = Callable[[psycopg.Connection[Any], Positions], None]
"""Folds the generation up to these positions over this connection, whose transaction holds the locks."""

Blocked = Callable[[float], None]
"""Is told for how long commits had to wait, in seconds, also by an attempt that failed."""

CHECKPOINTS_TIMEOUT: Final = "800ms"
"""For the workers' commits to end; the next ones wait behind us meanwhile."""

VIEWS_TIMEOUT: Final = "800ms"
"""For the queries that run to end; readers that come now wait behind us for so long."""


FROZEN_TIMEOUT: Final = "5s"


@dataclass(frozen=True, slots=True)
class Session:
    """A session that something has to wait for, and the snapshot by which it was met."""

    pid: int
    user: str
    application: str
    since: str
    query: str
    snapshot: str
    age_s: float

    def __str__(self) -> str:
        return f"pid {self.pid} ({self.user}, {self.application or 'no name'}), in a transaction since {self.since}: {self.query}"


class Occupied(SpanfoldError):
    """A reader keeps a view, see `readers`, or commits took too long; nothing was changed."""


def hand_over(
    engine: Engine, projection: Projection, generation: GenerationRow, fold_rest: FoldRest, blocked: Blocked
) -> None:
    """Fold the rest and mark the generation as following. Raises Occupied."""
    with _Locked(engine, projection, generation, fold_rest, blocked) as locked:
        set_state(locked.connection, projection.name, generation, "following")


def swap(
    engine: Engine, projection: Projection, generation: GenerationRow, fold_rest: FoldRest, blocked: Blocked
) -> None:
    """Fold the rest, if there is any, and make the generation the live one. Raises Occupied."""
    with _Locked(engine, projection, generation, fold_rest, blocked, views=True) as locked:
        live = live_generation(locked.connection, projection.name)
        if live is not None:
            set_state(locked.connection, projection.name, live, "previous")
        set_state(locked.connection, projection.name, generation, "live")


class _Locked:
    """A transaction that holds every checkpoint of the journal, the live generation and this one, which is at the journal's; with
    `views` also these, which it has pointed at the generation before commits had to wait.
    """

    def __init__(
        self,
        engine: Engine,
        projection: Projection,
        generation: GenerationRow,
        fold_rest: FoldRest,
        blocked: Blocked,
        views: bool = False,
    ) -> None:
        self._engine, self._projection, self._generation, self._fold_rest = engine, projection, generation, fold_rest
        self._blocked, self._views = blocked, views
        self._began: float | None = None

    def __enter__(self) -> "_Locked":
        self.connection = self._engine.connect()
        try:
            self._point_the_views()
            # whoever is frozen here lets go soon
            self.connection.execute(text(f"SET LOCAL idle_in_transaction_session_timeout = '{FROZEN_TIMEOUT}'"))
            ends = self._lock()
            self._fold_rest(_raw(self.connection), ends)
        except BaseException as error:
            self._let_go()
            cause = error.orig if isinstance(error, DBAPIError) else error
            if isinstance(cause, errors.LockNotAvailable | errors.QueryCanceled):
                raise Occupied(str(cause)) from error
            raise
        return self

    def _point_the_views(self) -> None:
        if self._views:
            alone(self.connection)
            self.connection.execute(text(f"SET LOCAL lock_timeout = '{VIEWS_TIMEOUT}'"))
            show(self.connection, self._projection, self._generation.schema)

    def _lock(self) -> Positions:
        """Lock the checkpoints; returns the journal's."""
        topics = [topic.name for topic in self._projection.topics]
        wanted = {"p": self._projection.name, "g": self._generation.number, "topics": topics}
        self.connection.execute(text(f"SET LOCAL lock_timeout = '{CHECKPOINTS_TIMEOUT}'"))
        # of all locks together: each has others behind it
        self.connection.execute(text(f"SET LOCAL statement_timeout = '{CHECKPOINTS_TIMEOUT}'"))
        self._began = time.monotonic()
        rows = self.connection.execute(text(LOCK), wanted).all()
        self.connection.execute(text("SET LOCAL statement_timeout = 0"))
        return {(topic, partition): at for topic, partition, owner, _, at in rows if owner == JOURNAL}

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        try:
            if kind is None:
                self.connection.commit()
        finally:
            self._let_go()

    def _let_go(self) -> None:
        self.connection.close()
        if self._began is not None:
            self._blocked(time.monotonic() - self._began)


def _raw(connection: Connection) -> psycopg.Connection[Any]:
    return cast("psycopg.Connection[Any]", connection.connection.driver_connection)


def snapshots(connection: psycopg.Connection[Any]) -> list[Session]:
    """Sessions that look at this database as it was at some moment up to now."""
    return [Session(*row) for row in connection.execute(SNAPSHOTS)]


def readers(connection: psycopg.Connection[Any], projection: Projection) -> list[Session]:
    """Sessions that hold one of the projection's views until their transaction ends."""
    return [Session(*row) for row in connection.execute(READERS, ([view.name for view in projection.views],))]


LOCK: Final = f"""
SELECT c.topic, c.partition, c.projection, c.generation, c.next_offset
  FROM {CORE}.checkpoints c
  LEFT JOIN {CORE}.generations g USING (projection, generation)
 WHERE c.topic = ANY (:topics)
   AND (c.projection = '{JOURNAL}' OR (c.projection = :p AND (g.state = 'live' OR g.generation = :g)))
 ORDER BY c.topic, c.partition, c.projection, c.generation
   FOR UPDATE OF c
"""

_SESSION: Final = """a.pid, coalesce(a.usename, '?'), coalesce(a.application_name, ''), to_char(a.xact_start, 'HH24:MI:SS.US'),
       left(regexp_replace(a.query, '\\s+', ' ', 'g'), 100), coalesce(a.backend_xmin::text, ''),
       extract(epoch FROM clock_timestamp() - a.xact_start)::double precision"""

SNAPSHOTS: Final = f"""
SELECT {_SESSION}
  FROM pg_stat_activity a
 WHERE a.datname = current_database() AND a.backend_type = 'client backend' AND a.pid <> pg_backend_pid()
   AND a.backend_xmin IS NOT NULL AND a.xact_start IS NOT NULL
 ORDER BY a.xact_start
"""

READERS: Final = f"""
SELECT DISTINCT {_SESSION}
  FROM pg_locks l
  JOIN pg_stat_activity a USING (pid)
 WHERE l.relation IN (SELECT to_regclass('spanfold.' || quote_ident(v)) FROM unnest(%s::text[]) AS v)
   AND l.granted AND a.pid <> pg_backend_pid()
   AND a.datname = current_database() AND a.xact_start IS NOT NULL
"""
