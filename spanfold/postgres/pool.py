"""Pools of connections to Postgres for one event loop, and queries over them that are tried again until a deadline."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, Self

from psycopg import AsyncConnection, InterfaceError, OperationalError, errors
from psycopg_pool import AsyncConnectionPool

from spanfold.language.errors import Misconfigured, StoreUnavailable
from spanfold.postgres import sessions
from spanfold.postgres.connections import CONNECT_TIMEOUT_S, DEFAULTS
from spanfold.postgres.dsn import with_defaults
from spanfold.postgres.retries import within

Row = tuple[Any, ...]

RECONNECT_TIMEOUT_S: Final = 2.0 * CONNECT_TIMEOUT_S
"""A server that is away is asked again soon: whoever waits has a deadline of its own."""


async def _as_it_is(_: AsyncConnection[Any]) -> None:
    pass


def pool_of(
    dsn: str,
    name: str,
    *,
    connections: int,
    timeout_s: float,
    settings: sessions.Settings = sessions.PLAIN,
    configure: Callable[[AsyncConnection[Any]], Awaitable[None]] = _as_it_is,
    **options: Any,
) -> AsyncConnectionPool:
    """A pool in autocommit mode, to be opened with `async with`; pg_stat_activity shows `name` unless the DSN has another one.
    Sessions are pinned, with these `settings` in place of PINNED's or besides, then configured. A caller waits `timeout_s` for
    a connection.
    """

    async def begin(connection: AsyncConnection[Any]) -> None:
        await sessions.pin_async(connection, settings)
        await configure(connection)

    of_pool: dict[str, Any] = {"kwargs": {"autocommit": True}, "min_size": 1, "open": False, **options}
    return AsyncConnectionPool(
        with_defaults(dsn, **{"application_name": name, **DEFAULTS}),
        max_size=connections,
        timeout=timeout_s,
        name=name,
        configure=begin,
        **of_pool,
    )


class Postgres:
    """A pool of connections for one event loop. `async with Postgres(dsn) as postgres: …`"""

    def __init__(self, dsn: str, *, connections: int = 4, application_name: str = "spanfold event store") -> None:
        self._pool = pool_of(
            dsn,
            application_name,
            connections=connections,
            timeout_s=CONNECT_TIMEOUT_S,
            reconnect_timeout=RECONNECT_TIMEOUT_S,
        )

    async def __aenter__(self) -> Self:
        await self._pool.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._pool.close()

    async def rows(self, statement: str, parameters: Any = (), *, within_s: float) -> list[Row]:
        """The rows of a statement that may run twice. StoreUnavailable when Postgres does not answer in time, Misconfigured
        when the database is not prepared.
        """
        deadline = time.monotonic() + within_s

        async def attempt() -> list[Row]:
            async with asyncio.timeout(deadline - time.monotonic()):
                return await self._query(statement, parameters)

        try:
            return await within(within_s)(attempt)
        except errors.UndefinedTable as error:
            raise Misconfigured(f"{error.diag.message_primary}: run `spanfold migrate`") from error
        except (OperationalError, InterfaceError, TimeoutError) as error:
            raise StoreUnavailable(f"Postgres did not answer the query: {error or 'no answer in time'}") from error

    async def _query(self, statement: str, parameters: Any) -> list[Row]:
        async with self._pool.connection() as connection, connection.cursor(binary=True) as cursor:
            await cursor.execute(statement.encode(), parameters)
            return await cursor.fetchall() if cursor.description else []
