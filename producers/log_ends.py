"""Where partitions end, by what the broker says now."""

import asyncio
from collections.abc import Collection, Mapping
from typing import Final

from confluent_kafka import IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]  # re-exported implicitly

from producers.topics import kafka_config
from spanfold.errors import LogUnavailable
from spanfold.settings import Settings

BrokerPartition = tuple[str, int]
"""Name of the topic on the broker, and partition."""

_LATEST: Final = OffsetSpec.latest()  # type: ignore[no-untyped-call]


class LogEnds:
    """Asks for the offset after the last record of partitions. Safe to share between tasks of an event loop."""

    def __init__(self, settings: Settings) -> None:
        self._admin = AdminClient(kafka_config(settings))

    async def of(
        self, partitions: Collection[BrokerPartition], *, committed: bool, within_s: float
    ) -> Mapping[BrokerPartition, int]:
        """The ends for a reader of committed records (before the first transaction that is open), or of all that there is.
        LogUnavailable when Kafka does not say.
        """
        isolation = IsolationLevel.READ_COMMITTED if committed else IsolationLevel.READ_UNCOMMITTED
        asked = {TopicPartition(*each): _LATEST for each in partitions}
        answers = self._admin.list_offsets(asked, isolation_level=isolation, request_timeout=within_s)
        try:
            return {
                (each.topic, each.partition): (await asyncio.wrap_future(found)).offset
                for each, found in answers.items()
            }
        except KafkaException as error:
            raise LogUnavailable(f"Kafka does not say where its partitions end: {error.args[0].str()}") from error
