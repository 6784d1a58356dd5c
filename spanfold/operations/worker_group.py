"""The consumer group of the workers of one kind, as the broker sees it."""

from typing import Final, cast

from confluent_kafka import KafkaException
from confluent_kafka.admin import (
    AdminClient,
    ConsumerGroupDescription,
)

from spanfold.kafka.client import kafka_config
from spanfold.language.settings import Settings

PROJECTOR: Final = "projector"
SNAPSHOTS: Final = "snapshots"
"""The kinds of workers: names of commands, and of consumer groups behind the installation's own name."""

REQUEST_TIMEOUT_S: Final = 5.0


class WorkerGroup:
    """The group of one kind of workers. `close` it before its Kafka goes."""

    def __init__(self, settings: Settings, kind: str) -> None:
        self.name = f"{settings.group}-{kind}"
        self._config = kafka_config(settings)
        self._admin: AdminClient | None = None

    def describe(self) -> ConsumerGroupDescription | None:
        """Its state and members; None when the coordinator doesn't answer now, or never heard of the group."""
        self._admin = self._admin or AdminClient(self._config)
        described = self._admin.describe_consumer_groups([self.name], request_timeout=REQUEST_TIMEOUT_S)
        try:
            return cast(ConsumerGroupDescription, described[self.name].result())
        except KafkaException:
            return None

    def close(self) -> None:
        """Drop the client. One that outlives its Kafka may hang when the process ends (seen in librdkafka's destroy)."""
        self._admin = None

    def member_ids(self) -> set[str]:
        """The ids of its members now."""
        described = self.describe()
        return {member.member_id for member in described.members} if described else set()


def owners(described: ConsumerGroupDescription) -> dict[tuple[str, int], str]:
    """Which member owns a partition, keyed by the topic's name on the broker and the partition."""
    return {
        (partition.topic, partition.partition): member.member_id
        for member in described.members
        for partition in member.assignment.topic_partitions
    }
