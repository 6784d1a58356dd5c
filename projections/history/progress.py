"""Waiting until the journal, or a projection's live generation, has passed a position: one query for all who wait."""

import asyncio
from collections.abc import Iterable
from heapq import heappop, heappush
from itertools import count
from typing import Final

from spanfold.language.errors import SpanfoldError, StoreUnavailable
from spanfold.language.positions import Position
from spanfold.postgres.pool import Postgres, Row
from spanfold.projections.commit.journal import CORE, JOURNAL

_FIRST_PAUSE_S: Final = 0.003
_LONGEST_PAUSE_S: Final = 0.05
_ATTEMPT_S: Final = 5.0

_Waiting = list[tuple[int, int, "asyncio.Future[None]"]]
"""A heap: offset, a number that tells equals apart, who waits."""


class Progress:
    """How far records have been judged and folded. While anybody waits, a task asks every few ms, more rarely while nothing
    moves; Postgres being away is waited for.
    """

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres
        self._heaps: dict[tuple[str, str, int], _Waiting] = {}
        self._numbers = count()
        self._waiting = 0
        self._task: asyncio.Task[None] | None = None

    async def passes(self, positions: Iterable[Position], within_s: float, reader: str = JOURNAL) -> None:
        """Return once the journal, or the live generation of the projection `reader`, reflects all of these. TimeoutError
        when it does not in time.
        """
        futures = [self._expect(reader, position) for position in positions]
        if not futures:
            return
        self._waiting += 1
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._watch())
        try:
            async with asyncio.timeout(within_s):
                await asyncio.gather(*futures)
        finally:
            self._waiting -= 1
            for future in futures:
                future.cancel()

    def _expect(self, reader: str, position: Position) -> "asyncio.Future[None]":
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heap = self._heaps.setdefault((reader, position.topic, position.partition), [])
        heappush(heap, (position.offset, next(self._numbers), future))
        return future

    async def _watch(self) -> None:
        pause_s = _FIRST_PAUSE_S
        while self._waiting:
            try:
                moved = self._release(await self._postgres.rows(CHECKPOINTS, within_s=_ATTEMPT_S))
            except StoreUnavailable:
                moved = False
            except SpanfoldError as error:
                self._fail(error)
                moved = True
            pause_s = _FIRST_PAUSE_S if moved else min(1.5 * pause_s, _LONGEST_PAUSE_S)
            await asyncio.sleep(pause_s)
        self._heaps.clear()

    def _release(self, rows: Iterable[Row]) -> bool:
        """Tell those whose position has been passed; whether there were any."""
        released = False
        for reader, topic, partition, next_offset in rows:
            heap = self._heaps.get((reader, topic, partition))
            while heap and heap[0][0] < next_offset:
                _, _, future = heappop(heap)
                if not future.done():
                    future.set_result(None)
                    released = True
        return released

    def _fail(self, error: SpanfoldError) -> None:
        heaps, self._heaps = self._heaps, {}
        for heap in heaps.values():
            for _, _, future in heap:
                if not future.done():
                    future.set_exception(error)


CHECKPOINTS: Final = f"""
SELECT c.projection, c.topic, c.partition, c.next_offset
  FROM {CORE}.checkpoints c
  LEFT JOIN {CORE}.generations g USING (projection, generation)
 WHERE c.projection = '{JOURNAL}' OR g.state = 'live'
"""
