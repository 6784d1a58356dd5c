"""Asks the public views, and says which positions of the log the answer reflects.

Rows and positions are read by one statement, hence in one snapshot. It must be one: a transaction that reads twice could meet a
rebuild's swap in between, and say the old generation's positions of the new one's rows.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Self

from psycopg import AsyncConnection, AsyncCursor, DataError, OperationalError, errors, sql
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout

from spanfold.application.messages import NotYetReflected
from spanfold.language.errors import InvalidInput, Misconfigured, StoreUnavailable
from spanfold.language.positions import NextOffsets, Position, missing
from spanfold.postgres import documents
from spanfold.postgres.coalescer import Coalescer
from spanfold.postgres.pool import pool_of
from spanfold.postgres.sessions import READ_ONLY
from spanfold.projections.projection import installed
from spanfold.projections.queries import micros

Row = Mapping[str, Any]

WAIT_S: Final = 10.0
STATEMENT_S: Final = 30.0
CONNECT_S: Final = 10.0
_FIRST_PAUSE_S: Final = 0.01
_LONGEST_PAUSE_S: Final = 0.2


@dataclass(frozen=True, slots=True)
class Question:
    """A SELECT on the public views of `projection`, its parameters by name, and the order of its rows."""

    projection: str
    select: sql.Composable
    order_by: sql.SQL
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RowsAt:
    """Rows, and the positions that they reflect: the last one of each partition that was folded into them."""

    rows: Sequence[Row]
    reflects: tuple[Position, ...]


class Reader:
    """Answers questions over a pool of connections that can't write. `async with Reader(dsn) as reader: …`; safe to share
    between tasks of one event loop: however many wait, one query at a time tells how far the read models are. The role
    spanfold_reader may all of it.

    `wait_s` bounds how long a question waits for the positions that it must reflect, `statement_s` how long Postgres may work
    on it.
    """

    def __init__(
        self, dsn: str, *, connections: int = 8, wait_s: float = WAIT_S, statement_s: float = STATEMENT_S
    ) -> None:
        self._wait_s, self._statement_s = wait_s, statement_s
        self._checkpoints: Coalescer[str, NextOffsets] = Coalescer(self._ask_checkpoints)
        self._pool = pool_of(
            dsn,
            "spanfold queries",
            connections=connections,
            timeout_s=CONNECT_S,
            settings={**READ_ONLY, "statement_timeout": f"{statement_s * 1000:.0f}ms"},
            kwargs={"autocommit": True, "prepare_threshold": None},
            configure=_configure,
            check=AsyncConnectionPool.check_connection,
        )

    async def __aenter__(self) -> Self:
        await self._pool.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._pool.close()

    async def find(self, question: Question, at_least: Sequence[Position] = ()) -> RowsAt:
        """The rows, as soon as they reflect `at_least`. NotYetReflected when that takes longer than wait_s, InvalidInput when it
        can never be, the statement takes too long or a parameter is no value of Postgres, StoreUnavailable when Postgres
        can't be reached, Misconfigured when it is not prepared.
        """
        _refuse_foreign(question.projection, at_least)
        if at_least:
            await self._wait(question.projection, at_least)
        return await self._read(question)

    async def problems(self) -> list[str]:
        """What keeps questions from being answered, each in a sentence."""
        try:
            async with self._cursor() as cursor:
                await cursor.execute(LIVE)
                live = {row["projection"] for row in await cursor.fetchall()}
        except (StoreUnavailable, Misconfigured) as error:
            return [str(error)]
        return [] if live else ["Postgres has no projections yet: run `spanfold migrate`"]

    async def _read(self, question: Question) -> RowsAt:
        statement = sql.SQL(READ).format(select=question.select, order_by=question.order_by)
        async with self._cursor() as cursor:
            await cursor.execute(statement, {**question.parameters, "projection": question.projection})
            rows = await cursor.fetchall()
        reflects = {(topic, partition): offset for topic, partition, offset in rows[0]["reflects"]}
        return RowsAt([row for row in rows if row["found"]], _positions(reflects))

    async def _wait(self, projection: str, at_least: Sequence[Position]) -> None:
        began, pause_s = time.monotonic(), _FIRST_PAUSE_S
        while lacking := missing(at_least, await self._reflected(projection, at_least)):
            waited_s = time.monotonic() - began
            if waited_s >= self._wait_s:
                raise NotYetReflected(lacking, self._wait_s, await self._suspended(projection, lacking))
            await asyncio.sleep(min(pause_s, self._wait_s - waited_s))
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    async def _suspended(self, projection: str, lacking: Sequence[Position]) -> str:
        """What of it is suspended, if anything is."""
        async with self._cursor() as cursor:
            await cursor.execute(SUSPENDED, {"names": [projection, *(position.topic for position in lacking)]})
            return "; ".join([f"{row['kind']} {row['name']} is suspended, ask its operator" async for row in cursor])

    async def _reflected(self, projection: str, at_least: Sequence[Position]) -> tuple[Position, ...]:
        checkpoints = await self._checkpoints.ask(projection)
        for position in at_least if checkpoints else ():
            if (position.topic, position.partition) not in checkpoints:
                raise InvalidInput(f"at_least: {position.topic} has no partition {position.partition} here")
        return _positions(checkpoints)

    async def _ask_checkpoints(self, projections: Sequence[str]) -> list[NextOffsets]:
        async with self._cursor() as cursor:
            await cursor.execute(CHECKPOINTS)
            rows = await cursor.fetchall()
        return [
            {(row["topic"], row["partition"]): row["next_offset"] for row in rows if row["projection"] == projection}
            for projection in projections
        ]

    @asynccontextmanager
    async def _cursor(self) -> AsyncIterator[AsyncCursor[Row]]:
        """Translates what Postgres may do into spanfold's errors."""
        try:
            async with (
                self._pool.connection() as connection,
                connection.cursor(binary=True, row_factory=dict_row) as cursor,
            ):
                yield cursor
        except errors.QueryCanceled as error:
            raise InvalidInput(
                f"the answer takes longer than {self._statement_s:g} s: ask for a shorter time"
            ) from error
        except DataError as error:
            raise InvalidInput(
                f"Postgres can't look for what the query says: {' '.join(str(error).split())}"
            ) from error
        except (errors.UndefinedTable, errors.InvalidSchemaName) as error:
            raise Misconfigured(f"{error.diag.message_primary}: run `spanfold migrate`") from error
        except (PoolTimeout, PoolClosed, OperationalError) as error:
            raise StoreUnavailable(f"Postgres can't be asked: {error}") from error


def bounded(query: object, bounds: Mapping[str, str]) -> tuple[list[sql.Composable], dict[str, Any]]:
    """The conditions of the bounds in time that the query sets, of these by the query's field, and their parameters."""
    times = {name: micros.Time(us) for name in bounds if (us := getattr(query, name)) is not None}
    return [sql.SQL(bounds[name]) for name in times], times


async def _configure(connection: AsyncConnection[Any]) -> None:
    micros.use(connection.adapters)
    documents.use(connection)


def _refuse_foreign(projection: str, at_least: Sequence[Position]) -> None:
    topics = [topic.name for topic in installed()[projection].topics]
    for position in at_least:
        if position.topic not in topics:
            raise InvalidInput(f"at_least: {position} is not folded into {projection}, which reads {', '.join(topics)}")


def _positions(next_offsets: NextOffsets) -> tuple[Position, ...]:
    return tuple(sorted(Position(*partition, offset - 1) for partition, offset in next_offsets.items() if offset))


LIVE: Final = "SELECT DISTINCT projection FROM spanfold.projections WHERE state = 'live'"

CHECKPOINTS: Final = """
SELECT projection, topic, partition, next_offset FROM spanfold.checkpoints WHERE live
"""

SUSPENDED: Final = "SELECT DISTINCT kind, name FROM spanfold.suspensions WHERE name = ANY (%(names)s) ORDER BY 1, 2"

READ: Final = """
SELECT checkpoints.reflects, rows.*
  FROM (SELECT coalesce(jsonb_agg(jsonb_build_array(topic, partition, next_offset)), '[]') AS reflects
          FROM spanfold.checkpoints
         WHERE projection = %(projection)s AND live) AS checkpoints
  LEFT JOIN (SELECT true AS found, selected.* FROM ({select}) AS selected) AS rows ON true
 ORDER BY {order_by}
"""
