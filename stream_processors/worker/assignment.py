"""What a worker asks when partitions are assigned to it: whether its topics are still those that it began with, and where its
tables stand.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final

import structlog
from faust.types import TP

from spanfold.kafka.topics import changes_of
from spanfold.language.errors import Misconfigured
from spanfold.language.retries import error_of, while_log_unavailable
from spanfold.language.settings import Settings
from spanfold.language.topics import TopicOnBroker
from spanfold.projections.commit.journal import CORE, JOURNAL
from spanfold.projections.commit.topic_suspension import suspend_topic
from spanfold.stream_processors.worker.committer import BatchStore, Committer
from spanfold.stream_processors.worker.held_partitions import HeldPartitions
from spanfold.stream_processors.worker.transport import Lost

log = structlog.get_logger("spanfold.worker")

ANSWER_S: Final = 5.0
PAUSE_S: Final = 1.0


class Assignment:
    """Of one worker; `topics` are as they were when it began."""

    def __init__(
        self,
        settings: Settings,
        topics: Mapping[str, TopicOnBroker],
        committer: Committer[Any],
        store: BatchStore[Any],
        held: HeldPartitions,
        *,
        judges: bool,
    ) -> None:
        self._held, self._judges = held, judges
        self._settings, self._committer, self._store = settings, committer, store
        self._topics = {topic.name: topic for topic in topics.values()}

    async def checkpoints(self, partitions: Sequence[TP]) -> Mapping[TP, int]:
        """Where each of these partitions is to be read from. Misconfigured when a topic was made again, or has other partitions.
        While Kafka or Postgres is away it waits.
        """
        if partitions:
            await self._refuse_changes({tp.topic for tp in partitions})
        at = self._store.start_offsets(await self._committer.query(self._store.checkpoints))
        return {tp: at[self._topics[tp.topic].topic.name, tp.partition] for tp in partitions}

    async def suspend_lost(self, app: Any, lost: Mapping[TP, Lost]) -> None:
        """Suspend the topics of these partitions, whose log lacks what the tables need next. Misconfigured if this worker does
        not judge and the log has what the journal needs next: verdicts don't stop because states lack something.
        """
        for tp, gap in lost.items():
            topic = self._topics[tp.topic].topic.name
            why = (
                f"{topic}/{tp.partition} holds offsets {gap.first} to {gap.last}, the tables stand at {gap.needed}: the log has "
                "lost records"
            )
            if not self._judges and gap.first <= await self._judged_to(topic, tp.partition) <= gap.last:
                raise Misconfigured(
                    f"{why} that states of aggregates need, or was pruned before this fold version began. Restore it, or go on "
                    f"without them with `spanfold resume {topic} --accept-loss`"
                )
            await self._committer.run(partial(suspend_topic, topic=topic, because=why))
            self._held.hold(app, [tp], why)

    async def _judged_to(self, topic: str, partition: int) -> int:
        ((offset,),) = await self._committer.query(JUDGED_TO, (topic, partition))
        return int(offset)

    async def _refuse_changes(self, names: set[str]) -> None:
        topics = [self._topics[name] for name in sorted(names)]
        ask = partial(changes_of, self._settings, topics, timeout_s=ANSWER_S)
        changes = await while_log_unavailable(
            ask, PAUSE_S, lambda state: log.warning("asking_again", why=str(error_of(state)))
        )
        if changes:
            raise Misconfigured("; ".join(changes))


JUDGED_TO: Final = f"""
SELECT next_offset FROM {CORE}.checkpoints WHERE topic = %s AND partition = %s AND projection = '{JOURNAL}'
"""
