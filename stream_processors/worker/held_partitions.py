"""Partitions of suspended topics: nobody fetches them until the topic is resumed; all others go on."""

import asyncio
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, Final

import structlog
from faust.types import TP

from spanfold.language.topics import TopicOnBroker
from spanfold.projections.commit.topic_suspension import SUSPENDED_TOPICS
from spanfold.stream_processors.worker.committer import BatchStore, Committer

log = structlog.get_logger("spanfold.worker")

LOOK_EVERY_S: Final = 1.0


class HeldPartitions:
    """Of one worker. While it holds any, a task looks which topics have been resumed; those are read again from their
    checkpoints.
    """

    def __init__(self, committer: Committer[Any], store: BatchStore[Any], topics: Mapping[str, TopicOnBroker]) -> None:
        self._committer, self._store = committer, store
        self._topics = {topic.name: topic.topic.name for topic in topics.values()}
        self._held: set[TP] = set()
        self._task: asyncio.Task[None] | None = None

    def hold(self, app: Any, partitions: Iterable[TP], why: str) -> None:
        """Fetch no more of these partitions."""
        held = set(partitions)
        for topic in sorted({self._topics[tp.topic] for tp in held} - {self._topics[tp.topic] for tp in self._held}):
            log.error("suspended", topic=topic, why=why, remedy=f"spanfold resume {topic}")
        self._held |= held
        app.consumer.hold(held)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._release_resumed(app))
            self._task.add_done_callback(partial(self._end_on_error, app))

    async def _release_resumed(self, app: Any) -> None:
        while self._held:
            await asyncio.sleep(LOOK_EVERY_S)
            suspended = {topic for (topic,) in await self._committer.query(SUSPENDED_TOPICS)}
            resumed = {tp for tp in self._held if self._topics[tp.topic] not in suspended}
            if resumed:
                self._held -= resumed
                await self._release(app, resumed)
                log.info("resumed", topics=sorted({self._topics[tp.topic] for tp in resumed}))

    async def _release(self, app: Any, partitions: set[TP]) -> None:
        at = self._store.start_offsets(await self._committer.query(self._store.checkpoints))
        await app.consumer.seek_back({tp: at[self._topics[tp.topic], tp.partition] for tp in partitions})
        app.consumer.release(partitions)

    def _end_on_error(self, app: Any, task: "asyncio.Task[None]") -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            # nobody awaits the task, and what it holds would be held for ever
            self._crash = asyncio.ensure_future(app.crash(error))
