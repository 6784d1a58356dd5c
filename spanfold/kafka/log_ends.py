"""First and last offsets of partitions, as the broker reports them now."""

import asyncio
import time
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import Future
from typing import Any, Final

from confluent_kafka import Consumer, IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from spanfold.kafka.client import kafka_config
from spanfold.kafka.retries import is_settling, while_settling
from spanfold.language.errors import LogUnavailable, Misconfigured
from spanfold.language.settings import Settings
from spanfold.language.topics import Partition, installed_topics

BrokerPartition = tuple[str, int]
"""Name of the topic on the broker, and partition."""

Bounds = tuple[int, int]
"""The first offset that the log still has, and the one after the last record of committed transactions."""

_EARLIEST: Final = OffsetSpec.earliest()  # type: ignore[no-untyped-call]
_LATEST: Final = OffsetSpec.latest()  # type: ignore[no-untyped-call]

ANSWER_S: Final = 10.0

REPLACED_PAUSE_S: Final = 0.5
"""Before a new client asks."""


class LogEnds:
    """Reads the offset after the last record of partitions. Safe to share between tasks of an event loop; `now` is for threads.

    librdkafka keeps the leaders that it knows, and a broker that has restarted since refuses their epochs for ever. So a client
    whose leaders are out of date is replaced.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._admin = AdminClient(kafka_config(settings))

    async def of(
        self, partitions: Collection[BrokerPartition], *, committed: bool, within_s: float
    ) -> Mapping[BrokerPartition, int]:
        """The ends for a reader of committed records (before the first open transaction), or of all records. LogUnavailable when
        Kafka does not answer.
        """
        deadline = time.monotonic() + within_s
        while True:
            admin, answers = self._ask(partitions, committed, within_s)
            try:
                return {at: (await asyncio.wrap_future(answer)).offset for at, answer in answers.items()}
            except KafkaException as error:
                self._replace_or_raise(admin, error, deadline)
            await asyncio.sleep(REPLACED_PAUSE_S)

    def now(
        self, partitions: Collection[BrokerPartition], *, committed: bool, within_s: float
    ) -> Mapping[BrokerPartition, int]:
        """The same for a thread, which it blocks."""
        deadline = time.monotonic() + within_s
        while True:
            admin, answers = self._ask(partitions, committed, within_s)
            try:
                return {at: answer.result().offset for at, answer in answers.items()}
            except KafkaException as error:
                self._replace_or_raise(admin, error, deadline)
            time.sleep(REPLACED_PAUSE_S)

    def _ask(
        self, partitions: Collection[BrokerPartition], committed: bool, within_s: float
    ) -> tuple[AdminClient, Mapping[BrokerPartition, Future[Any]]]:
        admin = self._admin
        if not partitions:
            return admin, {}
        isolation = IsolationLevel.READ_COMMITTED if committed else IsolationLevel.READ_UNCOMMITTED
        specs = {TopicPartition(*partition): _LATEST for partition in partitions}
        answers = admin.list_offsets(specs, isolation_level=isolation, request_timeout=within_s)
        return admin, {(place.topic, place.partition): answer for place, answer in answers.items()}

    def _replace_or_raise(self, admin: AdminClient, error: KafkaException, deadline: float) -> None:
        out_of_date = is_settling(error)
        if out_of_date and self._admin is admin:
            self._admin = AdminClient(kafka_config(self._settings))
        if not out_of_date or time.monotonic() + REPLACED_PAUSE_S >= deadline:
            raise LogUnavailable(f"Kafka did not report the ends of its partitions: {error.args[0].str()}") from error


def bounds_of(consumer: Consumer, topic: str, partition: int) -> Bounds:
    """Of one partition, by its topic's name on the broker. KafkaException when Kafka does not answer within ANSWER_S; tried again
    while its leader moves.
    """
    place = TopicPartition(topic, partition)
    first, end = while_settling(ANSWER_S, lambda: consumer.get_watermark_offsets(place, timeout=ANSWER_S))
    return first, end


def log_bounds(settings: Settings, *, committed: bool = True) -> dict[Partition, Bounds]:
    """Of each partition of the installed topics. With `committed`, a partition ends before its first open transaction.

    LogUnavailable when Kafka does not answer within ANSWER_S, Misconfigured when it lacks one of the topics.
    """
    try:
        admin = AdminClient(kafka_config(settings))
        partitions = _partitions(admin, settings)
        starts = while_settling(ANSWER_S, lambda: _listed(admin, partitions, _EARLIEST, committed))
        ends = while_settling(ANSWER_S, lambda: _listed(admin, partitions, _LATEST, committed))
    except KafkaException as error:
        raise LogUnavailable(f"Kafka at {settings.kafka_bootstrap} did not answer: {error.args[0].str()}") from error
    return {partition: (starts[place], ends[place]) for place, partition in partitions.items()}


def bounds_of_topic(settings: Settings, topic: str) -> dict[int, Bounds]:
    """Of each partition of the topic of this name, as `log_bounds` has them."""
    return {partition: bounds for (name, partition), bounds in log_bounds(settings).items() if name == topic}


def ends_of_log(settings: Settings) -> dict[Partition, int]:
    """The offset after the last record of each partition, of open and aborted transactions too. Raises as log_bounds does."""
    return {partition: end for partition, (_, end) in log_bounds(settings, committed=False).items()}


def _partitions(admin: AdminClient, settings: Settings) -> dict[BrokerPartition, Partition]:
    names = {topic.on_broker(settings.topic_prefix): topic.name for topic in installed_topics()}
    known = admin.list_topics(timeout=ANSWER_S).topics
    if missing := names.keys() - known.keys():
        raise Misconfigured(f"Kafka lacks the topics {', '.join(sorted(missing))}: run `spanfold migrate`")
    return {(name, number): (names[name], number) for name in names for number in known[name].partitions}


def _listed(
    admin: AdminClient, partitions: Iterable[BrokerPartition], spec: OffsetSpec, committed: bool
) -> dict[BrokerPartition, int]:
    isolation = IsolationLevel.READ_COMMITTED if committed else IsolationLevel.READ_UNCOMMITTED
    specs = {TopicPartition(*partition): spec for partition in partitions}
    answers = admin.list_offsets(specs, isolation_level=isolation, request_timeout=ANSWER_S)
    return {(place.topic, place.partition): answer.result().offset for place, answer in answers.items()}
