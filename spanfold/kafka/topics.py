"""The topics on the broker: created with spanfold's settings, checked against them, never altered silently."""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from confluent_kafka import KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    ConfigResource,
    NewTopic,
    OffsetSpec,
    ResourceType,
)

from spanfold.kafka.client import kafka_config
from spanfold.kafka.kafka_errors import KafkaErrorLog
from spanfold.kafka.retries import translated, while_settling
from spanfold.language.errors import Misconfigured
from spanfold.language.settings import Settings
from spanfold.language.topics import SNAPSHOTS_TOPIC, Topic, TopicOnBroker, installed_topics

Request = TypeVar("Request")

POLL_S: Final = 0.05

MAX_BATCH_BYTES: Final = 1_048_588
"""max.message.bytes of each topic (its largest batch): 1 MiB and 12 bytes of overhead, Kafka's default."""

MAX_SNAPSHOT_BYTES: Final = 64 * 1024 * 1024
"""The same for the topic of snapshots: a state may be larger than any event. Brokers accept requests of up to 100 MiB."""


def topic_config(settings: Settings) -> dict[str, str]:
    """The configuration that each topic of spanfold must have on the broker."""
    return {
        # the log's time is when the broker had the record: old event times neither expire at once nor bend as-of
        "message.timestamp.type": "LogAppendTime",
        "cleanup.policy": "delete",
        "retention.ms": "-1",
        "retention.bytes": "-1",
        "min.insync.replicas": str(settings.min_insync_replicas),
        "max.message.bytes": str(MAX_BATCH_BYTES),
    }


def snapshots_config(settings: Settings) -> dict[str, str]:
    """The configuration with which the compacted topic of snapshots is created."""
    return {
        "cleanup.policy": "compact",
        "min.insync.replicas": str(settings.min_insync_replicas),
        "max.message.bytes": str(MAX_SNAPSHOT_BYTES),
    }


def ensure_snapshots_topic(settings: Settings, *, timeout_s: float = 30.0) -> str:
    """Create the compacted topic of snapshots if it is missing; returns its name on the broker. Raises as ensure_topics does;
    of an existing one only the compaction is checked, its other settings are the operators' choice.
    """
    name = f"{settings.topic_prefix}{SNAPSHOTS_TOPIC}"
    config = kafka_config(settings)
    admin = _Admin(AdminClient(config), config["error_cb"], timeout_s)
    try:
        _create_missing(admin, [name], settings, snapshots_config(settings))
        policy = while_settling(timeout_s, lambda: _configs(admin, [name]))[name].get("cleanup.policy")
    except KafkaException as error:
        raise admin.error_log.explained(translated(error, settings)) from error
    if policy != "compact":
        raise Misconfigured(
            f"{name} has cleanup.policy={policy}, expected compact: it keeps the latest snapshot of each key"
        )
    return name


def ensure_topics(
    settings: Settings, topics: Iterable[Topic] | None = None, *, timeout_s: float = 30.0
) -> dict[str, TopicOnBroker]:
    """Create the topics (all installed ones) that are missing, check those that are there; keyed by `Topic.name`.

    Misconfigured names each topic, setting, actual and expected value; nothing is altered. It is also raised, at once,
    when Kafka refuses this client. LogUnavailable when Kafka doesn't answer within `timeout_s`. The number of replicas
    is not checked: operators may move and add them.
    """
    by_name = {
        topic.on_broker(settings.topic_prefix): topic for topic in (installed_topics() if topics is None else topics)
    }
    config = kafka_config(settings)
    admin = _Admin(AdminClient(config), config["error_cb"], timeout_s)
    try:
        created = _create_missing(admin, sorted(by_name), settings, topic_config(settings))
        on_broker = while_settling(timeout_s, lambda: _described(admin, by_name))
        while_settling(
            timeout_s, lambda: _await_leaders(admin, [topic for topic in on_broker if topic.name in created])
        )
        configs = while_settling(timeout_s, lambda: _configs(admin, sorted(by_name)))
    except KafkaException as error:
        raise admin.error_log.explained(translated(error, settings)) from error
    if differences := _differences(on_broker, configs, settings):
        raise Misconfigured("topics have wrong settings, nothing was changed:\n" + "\n".join(differences))
    return {topic.topic.name: topic for topic in on_broker}


def changes_of(settings: Settings, known: Iterable[TopicOnBroker], *, timeout_s: float) -> list[str]:
    """A line about each of these topics that was recreated or got more partitions since, with what to do. LogUnavailable when
    Kafka doesn't answer within `timeout_s`, Misconfigured when it refuses.
    """
    before = {topic.name: topic for topic in known}
    config = kafka_config(settings)
    admin = _Admin(AdminClient(config), config["error_cb"], timeout_s)
    try:
        topics = {name: topic.topic for name, topic in before.items()}
        now = while_settling(timeout_s, lambda: _described(admin, topics))
    except KafkaException as error:
        raise admin.error_log.explained(translated(error, settings)) from error
    return [_change(before[topic.name], topic) for topic in now if topic != before[topic.name]]


def _change(before: TopicOnBroker, now: TopicOnBroker) -> str:
    if before.topic_id != now.topic_id:
        return (
            f"{now.name} was deleted and recreated: it is another log than the one that these tables were folded from. "
            "Restore that log, or fold this one into an empty database"
        )
    return (
        f"{now.name} has {now.partitions} partitions, it had {before.partitions}: keys now map to other partitions, so the "
        "events of an aggregate are split. Copy its records into a new installation (another SPANFOLD_TOPIC_PREFIX)"
    )


@dataclass(frozen=True)
class _Admin:
    """An admin client whose connection errors are seen while it waits."""

    client: AdminClient
    error_log: KafkaErrorLog
    timeout_s: float

    def settled(self, requests: "dict[Request, Future[Any]]") -> "dict[Request, Future[Any]]":
        """The same once all have an answer; Misconfigured as soon as Kafka refuses this client."""
        while wait(requests.values(), POLL_S).not_done:
            self.client.poll(0)  # calls error_cb
            self.error_log.check()
        self.client.poll(0)
        return requests


def _create_missing(admin: _Admin, names: Sequence[str], settings: Settings, config: dict[str, str]) -> set[str]:
    """Create the topics; returns the names of those that did not exist."""
    new = [NewTopic(name, settings.partitions, settings.replication_factor, config=config) for name in names]
    requests = admin.client.create_topics(new, operation_timeout=admin.timeout_s, request_timeout=admin.timeout_s)
    created = set()
    for name, future in admin.settled(requests).items():
        try:
            future.result()
            created.add(name)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise
    return created


def _await_leaders(admin: _Admin, topics: Iterable[TopicOnBroker]) -> None:
    """Return when the leader of each partition answers; KafkaException when one does not."""
    latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
    specs = {TopicPartition(topic.name, number): latest for topic in topics for number in range(topic.partitions)}
    if specs:
        for future in admin.settled(admin.client.list_offsets(specs, request_timeout=admin.timeout_s)).values():
            future.result()


def _described(admin: _Admin, topics: Mapping[str, Topic]) -> list[TopicOnBroker]:
    described = admin.client.describe_topics(TopicCollection(sorted(topics)), request_timeout=admin.timeout_s)
    return [_on_broker(topics[name], future) for name, future in admin.settled(described).items()]


def _on_broker(topic: Topic, described: "Future[Any]") -> TopicOnBroker:
    description = described.result()
    return TopicOnBroker(topic, description.name, str(description.topic_id), len(description.partitions))


def _configs(admin: _Admin, names: Sequence[str]) -> dict[str, dict[str, str]]:
    resources = [ConfigResource(ResourceType.TOPIC, name) for name in names]
    described = admin.client.describe_configs(resources, request_timeout=admin.timeout_s)
    return {
        resource.name: {entry.name: entry.value for entry in future.result().values()}
        for resource, future in admin.settled(described).items()
    }


def _differences(
    topics: Iterable[TopicOnBroker], configs: Mapping[str, Mapping[str, str]], settings: Settings
) -> list[str]:
    lines = []
    for topic in topics:
        if topic.partitions != settings.partitions:
            lines.append(
                f"- {topic.name} has {topic.partitions} partitions, expected {settings.partitions}: "
                f"a topic's partition count can't change; set SPANFOLD_PARTITIONS={topic.partitions}, "
                "or use another SPANFOLD_TOPIC_PREFIX"
            )
        for key, expected in topic_config(settings).items():
            actual = configs[topic.name].get(key)
            if actual != expected:
                lines.append(
                    f"- {topic.name} has {key}={actual}, expected {expected}: set it with "
                    f"`kafka-configs.sh --alter --topic {topic.name} --add-config {key}={expected}`"
                )
    return lines
