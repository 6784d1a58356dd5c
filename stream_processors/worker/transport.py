"""A Faust transport that hands over one message per poll and partition: its value is the batch of raw records.

Faust's own consumer makes several asyncio tasks per record, which bounds a worker at some 16,000 records/s. Here the
records of a poll stay together, so that cost is paid once a batch. What differs from the stock aiokafka transport, and
nothing else does:

- `_fetch_records` wraps each partition's records with the range of positions that they cover, also when the range holds
  no record (aborted transactions, control records), so that checkpoints follow the consumer's position;
- `seek_to_committed` starts each partition where the checkpoints say, not where Kafka's committed offset does;
- records come in bounded memory, whatever a batch holds, and as aiokafka's parser made them: wrapping each once more would double
  what fetching costs (stream_processors/fetching);
- acks come for whole batches, in order, so finding the offset to commit needs no search for gaps;
- nothing is polled while the stream's buffer is full, of any partition: Faust pauses those that it then has a batch of, and those
  alone, for as long as the others keep the buffer filled;
- the consumer reads committed records only, and an offset that the log lacks is an error, never a silent jump;
- partitions can be held: nothing of them is handed over, and no other partition notices.

These are private names of faust-streaming and aiokafka, which is why their versions are pinned and a contract test holds
them.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence, Set
from contextlib import suppress
from typing import Any, Final, NamedTuple, cast

import aiokafka
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.errors import IllegalStateError, KafkaTimeoutError, NoOffsetForPartitionError, OffsetOutOfRangeError
from faust import Schema
from faust.transport.drivers import aiokafka as stock
from faust.types import TP, ConsumerMessage, Message

ASK_AGAIN_S: Final = 1.0

Checkpoints = Callable[[Sequence[TP]], Awaitable[Mapping[TP, int]]]
"""Where each of these partitions is to be read from: its next offset. Misconfigured when that can't be."""


class Lost(NamedTuple):
    """A log that holds the offsets [first, last), and not the one that is needed next."""

    first: int
    last: int
    needed: int


LogLost = Callable[[Any, Mapping[TP, Lost]], Awaitable[None]]
"""What is done with such partitions of an app; they are held then."""


class Fetched(NamedTuple):
    """The records of one poll of one partition, see ParsedRecords: all that committed transactions left in [start, end)."""

    records: list[Any]
    start: int
    end: int


class RawBatches(Schema[Any, Any]):
    """Keys and values reach the agent as the transport made them."""

    def loads_key(self, app: Any, message: Message, **_: Any) -> None:
        return None

    def loads_value(self, app: Any, message: Message, **_: Any) -> Any:
        return message.value


class Starts:
    """Where the next batch of each partition begins. That holds for the assignment in which the partition was sought and for no
    other: in the next one aiokafka begins where Kafka's commit says, until the partition is sought again. A seek that comes while
    the group rebalances would else give records from there another beginning, and what lies in between would be skipped.
    """

    def __init__(self) -> None:
        self._starts: dict[TP, tuple[object, int]] = {}

    def seek(self, assignment: object, offsets: Mapping[TP, int]) -> None:
        """The partitions have been sought in this assignment."""
        self._starts |= {tp: (assignment, offset) for tp, offset in offsets.items()}

    def forget(self, partitions: Iterable[TP]) -> None:
        """What comes of these partitions is not to be used."""
        for tp in partitions:
            self._starts.pop(tp, None)

    def within(self, assignment: object) -> dict[TP, int]:
        """The partitions that were sought in this assignment."""
        return {tp: start for tp, (sought_in, start) in self._starts.items() if sought_in is assignment}

    def advance(self, assignment: object, tp: TP, end: int) -> None:
        """The partition's records below `end` are handed over."""
        self._starts[tp] = (assignment, end)


class BatchConsumerThread(stock.AIOKafkaConsumerThread):
    """Fetches. All of it runs in the consumer's own thread and loop."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._starts = Starts()
        self.held: Set[TP] = frozenset()
        self._holding = threading.Lock()

    def hold(self, partitions: Set[TP]) -> None:
        """Hand over nothing of these; safe to call from any thread, as `release`."""
        with self._holding:
            self.held = self.held | partitions

    def release(self, partitions: Set[TP]) -> None:
        """Fetch these again."""
        with self._holding:
            self.held = self.held - partitions

    def _create_worker_consumer(self, transport: Any) -> aiokafka.AIOKafkaConsumer:
        conf = self.app.conf
        # the stock thread reads the assignor's metadata through this name
        self._assignor = RoundRobinPartitionAssignor
        return aiokafka.AIOKafkaConsumer(
            bootstrap_servers=stock.server_list(transport.url, transport.default_port),
            client_id=conf.broker_client_id,
            group_id=conf.id,
            group_instance_id=conf.consumer_group_instance_id,
            partition_assignment_strategy=[self._assignor],
            enable_auto_commit=False,
            auto_offset_reset="none",
            isolation_level="read_committed",
            max_poll_records=conf.broker_max_poll_records,
            max_poll_interval_ms=int(conf.broker_max_poll_interval * 1000),
            max_partition_fetch_bytes=conf.consumer_max_fetch_size,
            fetch_max_wait_ms=500,
            request_timeout_ms=int(conf.broker_request_timeout * 1000),
            session_timeout_ms=int(conf.broker_session_timeout * 1000),
            rebalance_timeout_ms=int(conf.broker_rebalance_timeout * 1000),
            heartbeat_interval_ms=int(conf.broker_heartbeat_interval * 1000),
            metadata_max_age_ms=conf.consumer_metadata_max_age_ms,
            connections_max_idle_ms=conf.consumer_connections_max_idle_ms,
            **stock.credentials_to_aiokafka_auth(conf.broker_credentials, conf.ssl_context),
        )

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        self._starts.forget(revoked)
        self.release(self.held)
        await super().on_partitions_revoked(revoked)

    async def _seek_wait(self, consumer: aiokafka.AIOKafkaConsumer, partitions: Mapping[TP, int]) -> None:
        # the seeks follow without yielding to the loop
        self._starts.seek(_assignment_of(consumer), partitions)
        try:
            await super()._seek_wait(consumer, partitions)
        except IllegalStateError:
            # one is no longer assigned, and those after it were not sought: nothing of them is to be used. The assignment
            # that has come meanwhile seeks again
            self._starts.forget(partitions)
            raise

    async def _fetch_records(
        self,
        consumer: aiokafka.AIOKafkaConsumer,
        active_partitions: set[TP],
        timeout: float | None = None,  # noqa: ASYNC109  (the stock signature)
        max_records: int | None = None,
    ) -> dict[TP, list[Fetched]]:
        wanted = active_partitions - self.held
        if not wanted:  # none would be taken for all
            await asyncio.sleep(timeout or 0)
            return {}
        try:
            records = await super()._fetch_records(consumer, wanted, timeout=timeout, max_records=max_records)
        except NoOffsetForPartitionError:
            # a new partition before its first seek, in a group that has not committed to Kafka yet
            return {}
        except OffsetOutOfRangeError as error:
            # the log was cut, or the topic made again: others go on while somebody looks
            moved = frozenset(TP(*tp) for tp in error.args[0])
            self.hold(moved)
            consumer_of_batches = cast(BatchConsumer, self.consumer)
            asyncio.run_coroutine_threadsafe(consumer_of_batches.look_again(moved), consumer_of_batches.loop)
            return {}
        # from here on nothing yields to the loop, so records, positions and seeks cannot get out of step
        assignment, fetched = _assignment_of(consumer), {}
        for tp, start in self._starts.within(assignment).items():
            if tp not in wanted:
                continue
            end = await consumer.position(tp)
            if end > start:
                polled = records.get(tp, [])
                if polled and polled[0].offset < start:  # whatever came of a seek, a batch has nothing below its start
                    polled = [record for record in polled if record.offset >= start]
                fetched[tp] = [Fetched(polled, start, end)]
                self._starts.advance(assignment, tp, end)
        return fetched


def _assignment_of(consumer: aiokafka.AIOKafkaConsumer) -> object:
    """What the group has assigned to the consumer at this moment: an object of its own for each rebalance."""
    subscription = consumer._subscription.subscription
    return subscription.assignment if subscription is not None else None


class BatchConsumer(stock.Consumer):
    """Faust's consumer, whose unit is the batch."""

    def _new_consumer_thread(self) -> BatchConsumerThread:
        return BatchConsumerThread(self, loop=self.loop, beacon=self.beacon)

    def _to_message(self, tp: TP, record: Fetched) -> ConsumerMessage:
        """A message whose offset is the last one that its batch covers, so that its ack commits `end`."""
        message = ConsumerMessage(
            tp.topic, tp.partition, record.end - 1,
            timestamp=0.0, timestamp_type=0, headers=[], key=None, value=None, checksum=None,
            tp=tp, generation_id=self.app.consumer_generation_id,
        )  # fmt: skip
        message.value = record  # type: ignore[assignment]  # what the agent gets, as RawBatches promises
        return message

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Seek every assigned partition to its checkpoint."""
        offsets, _ = await self._beginnings(sorted(self.assignment()))
        await self.seek_wait(offsets)
        return offsets

    async def look_again(self, partitions: Set[TP]) -> None:
        """These partitions, which are held, were not where they were expected: seek those that have not lost anything."""
        offsets, lost = await self._beginnings(sorted(partitions & self.assignment()))
        await self.seek_wait(offsets)
        self.release(partitions - lost)

    async def _beginnings(self, partitions: Sequence[TP]) -> tuple[dict[TP, int], Set[TP]]:
        """Where to begin with each; and those whose log has lost what comes next: they begin where it begins, and are held."""
        transport = cast(BatchTransport, self.transport)
        try:
            checkpoints = dict(await transport.checkpoints(partitions))
            if lost := await self._lost(checkpoints):
                await transport.log_lost(self.app, lost)
        except Exception as error:
            # raised in a task that nobody awaits; the app must not go on without these partitions
            await self.app.crash(error)
            raise
        return checkpoints | {tp: gap.first for tp, gap in lost.items()}, lost.keys()

    async def _lost(self, checkpoints: Mapping[TP, int]) -> dict[TP, Lost]:
        """The partitions whose log does not reach from their checkpoint on."""
        first, last = await self._bounds(checkpoints)
        return {
            tp: Lost(first[tp], last[tp], offset)
            for tp, offset in checkpoints.items()
            if not first[tp] <= offset <= last[tp]
        }

    async def _bounds(self, partitions: Collection[TP]) -> tuple[Mapping[TP, int], Mapping[TP, int]]:
        """The first offset of each partition, and the one after the last; asked for until Kafka answers."""
        while True:
            try:
                return await self.earliest_offsets(*partitions), await self.highwaters(*partitions)
            except KafkaTimeoutError as error:
                self.log.warning("Asking again for the log's bounds: %r", error)
                await asyncio.sleep(ASK_AGAIN_S)

    async def seek_back(self, offsets: Mapping[TP, int]) -> None:
        """Seek those of these partitions that are still assigned; the others are sought when they are assigned again."""
        assigned = self.assignment()
        with suppress(IllegalStateError):  # they may change meanwhile
            await self.seek_wait({tp: offset for tp, offset in offsets.items() if tp in assigned})

    def hold(self, partitions: Iterable[TP]) -> None:
        """Hand over nothing of these partitions until they are released, or the group assigns them anew."""
        cast(BatchConsumerThread, self._thread).hold(set(partitions))

    def release(self, partitions: Iterable[TP]) -> None:
        """Fetch these partitions again."""
        cast(BatchConsumerThread, self._thread).release(set(partitions))

    def drop(self, message: Message) -> None:
        """Be done with a message whose batch was not committed: what Kafka knows as committed must not pass it."""
        message.acked = True
        self._unacked_messages.discard(message)

    def on_buffer_full(self, tp: TP) -> None:
        return None

    def on_buffer_drop(self, tp: TP) -> None:
        return None

    def _new_offset(self, tp: TP) -> int | None:
        acked = self._acked[tp]
        if not acked:
            return None
        newest = max(acked)
        acked.clear()
        self._acked_index[tp].clear()
        return int(newest) + 1

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        return None


class BatchTransport(stock.Transport):
    """`app.transport = BatchTransport(app.conf.broker_consumer, app, checkpoints=…, log_lost=…)`."""

    Consumer = BatchConsumer

    def __init__(self, url: Any, app: Any, *, checkpoints: Checkpoints, log_lost: LogLost, **kwargs: Any) -> None:
        super().__init__(url, app, **kwargs)
        self.checkpoints = checkpoints
        self.log_lost = log_lost
