"""A Faust app whose one agent folds batches into Postgres. It has no opinions: read, fold, commit, ack.

While Postgres commits one batch, the next is decoded and folded. Acks follow commits, in order; Kafka's committed offset
is a courtesy to lag monitors, the checkpoints in Postgres decide.
"""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final, Generic, cast

import faust
import structlog
from faust.tables import TableManager
from faust.tables.recovery import Recovery
from faust.types import TP, EventT
from mode.supervisors import CrashingSupervisor

from spanfold.language.settings import Settings
from spanfold.language.topics import TopicOnBroker
from spanfold.projections.commit.batch import Batch, Gap, Outcome
from spanfold.projections.commit.topic_suspension import TopicSuspended
from spanfold.projections.states import NotJudgedYet
from spanfold.stream_processors.fetching.fetcher import use_bounded_memory
from spanfold.stream_processors.worker.assignment import Assignment
from spanfold.stream_processors.worker.committer import BatchStore, Committer, P
from spanfold.stream_processors.worker.credentials import credentials
from spanfold.stream_processors.worker.held_partitions import HeldPartitions
from spanfold.stream_processors.worker.metrics import Metrics
from spanfold.stream_processors.worker.transport import BatchTransport, Fetched, RawBatches

log = structlog.get_logger("spanfold.worker")

MAX_IN_FLIGHT: Final = 2
"""Batches that are prepared and not committed: batches differ in size, and with one the interpreter waited for Postgres."""

METADATA_MAX_AGE_MS: Final = 10_000
"""So soon it is noticed that a topic was made again or got more partitions."""

SHORTEST_PAUSE_S: Final = 0.02
LONGEST_PAUSE_S: Final = 0.5
"""Between two looks at a journal that is behind."""


class Folder(Generic[P]):
    """What the agent does with the batches of its partitions."""

    def __init__(
        self,
        store: BatchStore[P],
        committer: Committer[P],
        topics: Mapping[str, TopicOnBroker],
        metrics: Metrics,
    ) -> None:
        self._store = store
        self._committer = committer
        self._topics = {topic.name: topic for topic in topics.values()}
        self._metrics = metrics
        self._in_order = asyncio.Lock()
        self._in_flight: deque[asyncio.Task[None]] = deque()
        self._sought: dict[TP, int] = {}
        self.held = HeldPartitions(committer, store, topics)

    async def run(self, stream: Any) -> None:
        """Fold batches as they come. One is being committed, one waits for that, and the next is prepared meanwhile; they
        are committed and acknowledged in order.
        """
        async for event in stream.noack().events():
            prepared = self._store.prepare(self._batch(event))
            while len(self._in_flight) >= MAX_IN_FLIGHT:
                await self._in_flight.popleft()
            task = asyncio.create_task(self._commit(event, prepared))
            task.add_done_callback(partial(self._end_on_error, event.app))
            self._in_flight.append(task)

    def _batch(self, event: EventT[Any]) -> Batch:
        topic = self._topics[event.message.topic]
        return batch_of(topic, event.message.partition, cast(Fetched, event.value))

    async def _commit(self, event: EventT[Any], prepared: P) -> None:
        tp, began, app = event.message.tp, time.monotonic(), cast(Any, event.app)
        try:
            async with self._in_order:
                outcomes = await self._committed(prepared)
        except Gap as gap:
            app.consumer.drop(event.message)
            await self._go_back(app, tp, gap)
        except TopicSuspended as suspended:
            app.consumer.drop(event.message)
            self._sought.pop(tp, None)
            self.held.hold(app, [tp], str(suspended))
        else:
            self._sought.pop(tp, None)
            batch, duration_s = prepared.batch, time.monotonic() - began
            _report(tp, batch, outcomes)
            self._metrics.committed(
                batch.topic.name, len(batch), outcomes, duration_s=duration_s, unix_time=time.time()
            )
            event.ack()

    async def _committed(self, prepared: P) -> list[Outcome]:
        """Commit, once the journal has judged the whole batch; the next ones wait behind it."""
        pause = SHORTEST_PAUSE_S
        while True:
            try:
                return await self._committer.commit(prepared)
            except NotJudgedYet:
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE_S)

    async def _go_back(self, app: Any, tp: TP, gap: Gap) -> None:
        # batches that were fetched before the seek show the same gap: one seek is enough
        if self._sought.get(tp) != gap.next_offset:
            log.warning("refold", topic=tp.topic, partition=tp.partition, next_offset=gap.next_offset, why=str(gap))
            self._sought[tp] = gap.next_offset
            self._metrics.refolds.labels(self._topics[tp.topic].topic.name).inc()
            await app.consumer.seek_back({tp: gap.next_offset})

    def _end_on_error(self, app: Any, task: "asyncio.Task[None]") -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            # without another batch nobody would await the task: the worker must not look alive
            self._crash = asyncio.ensure_future(app.crash(error))


class PatientRecovery(Recovery):
    """Waits for Kafka and Postgres for as long as it takes to seek newly assigned partitions. The stock one gives up after
    broker_request_timeout, and for good: the worker then runs on, and never reads again.
    """

    async def _wait(self, coro: Any, timeout: Any = None) -> None:  # noqa: ASYNC109  (the stock signature)
        await super()._wait(coro)


class NoTables(TableManager):
    """Of an app that has none. The stock one waits a second for them when it starts."""

    @property
    def recovery(self) -> Recovery:
        if self._recovery is None:
            self._recovery = PatientRecovery(self.app, self, beacon=self.beacon, loop=self.loop)
        return self._recovery

    async def on_start(self) -> None:
        await self._update_channels()
        await self.recovery.start()


def batch_of(topic: TopicOnBroker, partition: int, fetched: Fetched) -> Batch:
    """The fetched records, column by column."""
    records = fetched.records
    return Batch(
        topic=topic.topic,
        partition=partition,
        partitions=topic.partitions,
        start=fetched.start,
        end=fetched.end,
        offsets=[record.offset for record in records],
        log_times_ms=[record.timestamp for record in records],
        keys=[record.key for record in records],
        headers=[record.headers for record in records],
        values=[record.value for record in records],
    )


def _report(tp: TP, batch: Batch, outcomes: Sequence[Outcome]) -> None:
    """A line for each thing that is not as usual, however many parts the batch was committed in."""
    where = {"topic": tp.topic, "partition": tp.partition, "start": batch.start, "end": batch.end}
    if any(outcome.fenced for outcome in outcomes):
        log.info("fenced", **where)
    for kind in ("rejected", "parked"):
        if counts := sum((Counter(getattr(outcome, kind)) for outcome in outcomes), Counter[str]()):
            log.info(kind, **where, **counts)
    for outcome in outcomes:
        for projection, why in outcome.suspended.items():
            log.error("suspended", projection=projection, why=why, remedy=f"spanfold resume {projection}")


def folding_app(
    settings: Settings,
    name: str,
    committer: Committer[P],
    store: BatchStore[P],
    folder: Folder[P],
    topics: Mapping[str, TopicOnBroker],
    *,
    judges: bool = True,
) -> Any:
    """The Faust app of the consumer group `<group>-<name>`; `faust.Worker(app)` runs it. `judges`: it gives verdicts."""
    use_bounded_memory(settings.max_value_bytes)
    app = _faust_app(settings, name)
    assignment = Assignment(settings, topics, committer, store, folder.held, judges=judges)
    app.transport = BatchTransport(
        app.conf.broker_consumer, app, checkpoints=assignment.checkpoints, log_lost=assignment.suspend_lost
    )
    names = [topic.name for topic in topics.values()]
    source = app.topic(*names, schema=RawBatches(), internal=True)
    app.agent(source, name=name, concurrency=1)(folder.run)
    app.on_before_shutdown.connect(lambda *_, **__: committer.stop(), weak=False)
    return app


def _faust_app(settings: Settings, name: str) -> Any:
    """An app without tables, web server or commits to Kafka that anything depends on."""
    return faust.App(
        f"{settings.group}-{name}",
        broker=f"kafka://{settings.kafka_bootstrap}",
        broker_credentials=credentials(settings),
        agent_supervisor=CrashingSupervisor,
        broker_session_timeout=settings.session_timeout_s,
        broker_heartbeat_interval=settings.session_timeout_s / 5,
        broker_commit_interval=1.0,
        broker_commit_every=1_000_000,
        broker_max_poll_records=settings.batch_records,
        consumer_max_fetch_size=settings.fetch_bytes,
        consumer_metadata_max_age_ms=METADATA_MAX_AGE_MS,
        stream_buffer_maxsize=16,
        stream_wait_empty=False,
        table_standby_replicas=0,
        TableManager=NoTables,
        datadir=settings.home / "faust",
        topic_allow_declare=False,
        topic_disable_leader=True,
        web_enabled=False,
        autodiscover=False,
    )
