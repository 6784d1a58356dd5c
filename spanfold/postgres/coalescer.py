"""One query for many callers: those that ask while a query is under way share the next one."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Request = TypeVar("Request")
Answer = TypeVar("Answer")


class Coalescer(Generic[Request, Answer]):
    """Requests that come while `answer` is at work are handed to it together next: in order, at most `most` at once. It returns
    as many answers, and begins after each of them was requested.
    """

    def __init__(self, answer: Callable[[Sequence[Request]], Awaitable[Sequence[Answer]]], most: int = 500) -> None:
        self._answer, self._most = answer, most
        self._pending: deque[tuple[Request, asyncio.Future[Answer]]] = deque()
        self._task: asyncio.Task[None] | None = None

    async def ask(self, request: Request) -> Answer:
        """The answer, or what `answer` raised."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._pending.append((request, future))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())
        return await future

    async def _run(self) -> None:
        while self._pending:
            taken = [self._pending.popleft() for _ in range(min(self._most, len(self._pending)))]
            try:
                answers = await self._answer([request for request, _ in taken])
            except Exception as error:
                for _, future in taken:
                    if not future.done():
                        future.set_exception(error)
                continue
            for (_, future), answer in zip(taken, answers, strict=True):
                if not future.done():
                    future.set_result(answer)
