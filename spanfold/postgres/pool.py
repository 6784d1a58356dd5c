"""Asks Postgres from an event loop, over a pool, again where that may help; and asks once for many who ask at the same time."""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Generic, Self, TypeVar

from psycopg import InterfaceError, OperationalError, errors
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout

from spanfold.language.errors import Misconfigured, StoreUnavailable
from spanfold.postgres.conninfo import with_defaults

Row = tuple[Any, ...]

_PAUSE_S: Final = 0.05
_CONNECT_S: Final = 5.0

Q = TypeVar("Q")
A = TypeVar("A")


class Postgres:
    """A pool of connections for one event loop. `async with Postgres(dsn) as postgres: …`"""

    def __init__(self, dsn: str, *, connections: int = 4, application_name: str = "spanfold event store") -> None:
        self._pool = AsyncConnectionPool(
            with_defaults(dsn, application_name=application_name, connect_timeout=str(int(_CONNECT_S))),
            kwargs={"autocommit": True},
            min_size=1,
            max_size=connections,
            timeout=_CONNECT_S,
            # a server that is away is asked again soon: whoever waits has a deadline of its own
            reconnect_timeout=2 * _CONNECT_S,
            name=application_name,
            open=False,
        )

    async def __aenter__(self) -> Self:
        await self._pool.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._pool.close()

    async def rows(self, statement: str, parameters: Any = (), *, within_s: float) -> list[Row]:
        """The rows of a statement that may be done twice. StoreUnavailable when Postgres does not answer in time, Misconfigured
        when it is not prepared.
        """
        deadline = time.monotonic() + within_s
        while True:
            try:
                async with asyncio.timeout(deadline - time.monotonic()):
                    return await self._once(statement, parameters)
            except errors.UndefinedTable as error:
                raise Misconfigured(f"{error.diag.message_primary}: run `spanfold migrate`") from error
            except (OperationalError, InterfaceError, PoolTimeout, TimeoutError) as error:
                if isinstance(error, PoolClosed) or time.monotonic() + _PAUSE_S >= deadline:
                    raise StoreUnavailable(f"Postgres can't be asked: {error or 'no answer'}") from error
            await asyncio.sleep(_PAUSE_S)

    async def _once(self, statement: str, parameters: Any) -> list[Row]:
        async with self._pool.connection() as connection, connection.cursor(binary=True) as cursor:
            await cursor.execute(statement.encode(), parameters)
            return await cursor.fetchall() if cursor.description else []


class Together(Generic[Q, A]):
    """Questions that are asked while an answer is under way are asked together next. `answer` takes them in order, at most
    `most` at once, and returns as many answers; it begins after each of them was asked.
    """

    def __init__(self, answer: Callable[[Sequence[Q]], Awaitable[Sequence[A]]], most: int = 500) -> None:
        self._answer, self._most = answer, most
        self._asked: deque[tuple[Q, asyncio.Future[A]]] = deque()
        self._task: asyncio.Task[None] | None = None

    async def ask(self, question: Q) -> A:
        """The answer, or what `answer` raised."""
        future: asyncio.Future[A] = asyncio.get_running_loop().create_future()
        self._asked.append((question, future))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())
        return await future

    async def _run(self) -> None:
        while self._asked:
            taken = [self._asked.popleft() for _ in range(min(self._most, len(self._asked)))]
            try:
                answers = await self._answer([question for question, _ in taken])
            except Exception as error:
                for _, future in taken:
                    if not future.done():
                        future.set_exception(error)
                continue
            for (_, future), answer in zip(taken, answers, strict=True):
                if not future.done():
                    future.set_result(answer)
