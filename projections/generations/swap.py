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

from spanfold.language.errors import LogUnavailable, SpanfoldError
from spanfold.language.positions import NextOffsets
from spanfold.projections.commit.journal import CORE, JOURNAL
from spanfold.projections.generation_states import GenerationState
from spanfold.projections.generations.lifecycle import GenerationRow, alone, live_generation, set_state
from spanfold.projections.generations.views import show
from spanfold.projections.projection import Projection

FoldRest = Callable[[psycopg.Connection[Any], NextOffsets], None]
"""Folds the generation up to these offsets over this connection, whose transaction holds the locks."""

CHECKPOINTS_TIMEOUT: Final = "800ms"
"""For the workers' commits to end; the next ones wait behind us meanwhile."""

VIEWS_TIMEOUT: Final = "800ms"
"""For the queries that run to end; readers that come now wait behind us for so long."""

FROZEN_TIMEOUT: Final = "5s"
"""A process that is frozen in this transaction holds its locks for so long at most."""


@dataclass(frozen=True, slots=True)
class Session:
    """A session of Postgres that holds the work up, and the snapshot by which it was recognised."""

    pid: int
    user: str
    application: str
    since: str
    query: str
    snapshot: str
    age_s: float

    def __str__(self) -> str:
        return f"pid {self.pid} ({self.user}, {self.application or 'no name'}), in a transaction since {self.since}: {self.query}"


class Postponed(SpanfoldError):
    """Nothing was changed, and it may be tried again: a reader holds a view (see `readers`), commits took too long, or Kafka
    did not answer; then `log_unavailable`. Commits waited for `blocked_s` seconds meanwhile.
    """

    def __init__(self, why: BaseException, blocked_s: float) -> None:
        super().__init__(str(why))
        self.log_unavailable = isinstance(why, LogUnavailable)
        self.blocked_s = blocked_s


def hand_over(engine: Engine, projection: Projection, generation: GenerationRow, fold_rest: FoldRest) -> float:
    """Fold the rest and mark the generation as following. Returns how long commits waited (s). Raises Postponed."""

    def mark(connection: Connection) -> None:
        set_state(connection, projection.name, generation, GenerationState.FOLLOWING)

    return _take_over(engine, projection, generation, fold_rest, mark, views=False)


def swap(engine: Engine, projection: Projection, generation: GenerationRow, fold_rest: FoldRest) -> float:
    """Fold the rest, if there is any, and make the generation the live one. Returns how long commits waited (s). Raises
    Postponed.
    """

    def mark(connection: Connection) -> None:
        live = live_generation(connection, projection.name)
        if live is not None:
            set_state(connection, projection.name, live, GenerationState.PREVIOUS)
        set_state(connection, projection.name, generation, GenerationState.LIVE)

    return _take_over(engine, projection, generation, fold_rest, mark, views=True)


def resume(engine: Engine, projection: Projection, generation: GenerationRow, fold_rest: FoldRest) -> float:
    """Fold the rest of a suspended generation and let workers keep it up again. Returns how long commits waited (s). Raises
    Postponed.
    """

    def mark(connection: Connection) -> None:
        set_state(connection, projection.name, generation, generation.state)

    return _take_over(engine, projection, generation, fold_rest, mark, views=False)


def _take_over(
    engine: Engine,
    projection: Projection,
    generation: GenerationRow,
    fold_rest: FoldRest,
    mark: Callable[[Connection], None],
    *,
    views: bool,
) -> float:
    """One transaction: with `views`, point them at the generation, before commits have to wait; lock the checkpoints of the
    journal, the live generation and this one; bring this one to where the journal is; `mark` it.
    """
    locking_since: float | None = None
    try:
        with engine.connect() as connection:  # a transaction that is not committed is rolled back when it closes
            if views:
                _point_views(connection, projection, generation)
            connection.execute(text(f"SET LOCAL idle_in_transaction_session_timeout = '{FROZEN_TIMEOUT}'"))
            _limit_locking(connection)
            locking_since = time.monotonic()
            judged = _lock_checkpoints(connection, projection, generation)
            fold_rest(_raw(connection), judged)
            mark(connection)
            connection.commit()
    except (DBAPIError, errors.LockNotAvailable, errors.QueryCanceled, LogUnavailable) as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        if not isinstance(cause, errors.LockNotAvailable | errors.QueryCanceled | LogUnavailable):
            raise
        raise Postponed(cause, _seconds_since(locking_since)) from error
    return _seconds_since(locking_since)


def _point_views(connection: Connection, projection: Projection, generation: GenerationRow) -> None:
    alone(connection)
    connection.execute(text(f"SET LOCAL lock_timeout = '{VIEWS_TIMEOUT}'"))
    show(connection, projection, generation.schema)


def _limit_locking(connection: Connection) -> None:
    connection.execute(text(f"SET LOCAL lock_timeout = '{CHECKPOINTS_TIMEOUT}'"))
    # of all locks together: each has others behind it
    connection.execute(text(f"SET LOCAL statement_timeout = '{CHECKPOINTS_TIMEOUT}'"))


def _lock_checkpoints(connection: Connection, projection: Projection, generation: GenerationRow) -> NextOffsets:
    """Lock the checkpoints; returns the journal's."""
    topics = [topic.name for topic in projection.topics]
    rows = connection.execute(text(LOCK), {"p": projection.name, "g": generation.number, "topics": topics}).all()
    connection.execute(text("SET LOCAL statement_timeout = 0"))
    return {(topic, partition): offset for topic, partition, owner, _, offset in rows if owner == JOURNAL}


def _seconds_since(began: float | None) -> float:
    return 0.0 if began is None else time.monotonic() - began


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
   AND (c.projection = '{JOURNAL}' OR (c.projection = :p AND (g.state = '{GenerationState.LIVE}' OR g.generation = :g)))
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
