"""The topics on the broker: created with spanfold's settings, checked against them, never altered silently."""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from confluent_kafka import KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # its public names, re-exported implicitly
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
"""max.message.bytes of each topic (the largest batch that it takes): 1 MiB and 12 bytes of overhead, Kafka's default."""

MAX_SNAPSHOT_BYTES: Final = 64 * 1024 * 1024
"""The same of the topic of snapshots: a state may be larger than any event. Brokers take requests of up to 100 MiB."""


def topic_config(settings: Settings) -> dict[str, str]:
    """What each topic of spanfold must be set to on the broker."""
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
    """What the compacted topic of snapshots is set to when it is created."""
    return {
        "cleanup.policy": "compact",
        "min.insync.replicas": str(settings.min_insync_replicas),
        "max.message.bytes": str(MAX_SNAPSHOT_BYTES),
    }


def ensure_snapshots_topic(settings: Settings, *, timeout_s: float = 30.0) -> str:
    """Create the compacted topic of snapshots if it is missing; returns its name on the broker. Raises as ensure_topics does;
    how operators have set an existing one is theirs, but that it is compacted.
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

    Misconfigured names each topic, setting, value found and value expected; nothing is altered. It also comes, at once,
    when Kafka refuses this client. LogUnavailable when Kafka doesn't answer within `timeout_s`. The number of replicas
    is not checked: operators may move and add them.
    """
    wanted = {
        topic.on_broker(settings.topic_prefix): topic for topic in (installed_topics() if topics is None else topics)
    }
    config = kafka_config(settings)
    admin = _Admin(AdminClient(config), config["error_cb"], timeout_s)
    try:
        created = _create_missing(admin, sorted(wanted), settings, topic_config(settings))
        found = while_settling(timeout_s, lambda: _described(admin, wanted))
        while_settling(timeout_s, lambda: _answer(admin, [each for each in found if each.name in created]))
        configs = while_settling(timeout_s, lambda: _configs(admin, sorted(wanted)))
    except KafkaException as error:
        raise admin.error_log.explained(translated(error, settings)) from error
    if differences := _differences(found, configs, settings):
        raise Misconfigured("the topics are not as they must be, nothing was changed:\n" + "\n".join(differences))
    return {each.topic.name: each for each in found}


def changes_of(settings: Settings, known: Iterable[TopicOnBroker], *, timeout_s: float) -> list[str]:
    """A line about each of these topics that is no longer as it was known, with what to do. LogUnavailable when Kafka doesn't
    answer within `timeout_s`, Misconfigured when it refuses.
    """
    before = {each.name: each for each in known}
    config = kafka_config(settings)
    admin = _Admin(AdminClient(config), config["error_cb"], timeout_s)
    try:
        found = while_settling(
            timeout_s, lambda: _described(admin, {each.name: each.topic for each in before.values()})
        )
    except KafkaException as error:
        raise admin.error_log.explained(translated(error, settings)) from error
    return [_change(before[each.name], each) for each in found if each != before[each.name]]


def _change(before: TopicOnBroker, now: TopicOnBroker) -> str:
    if before.topic_id != now.topic_id:
        return (
            f"{now.name} was deleted and made again: what is in it now is another log than the one that these tables were folded "
            "from. Restore that log, or fold this one into an empty database"
        )
    return (
        f"{now.name} has {now.partitions} partitions, it had {before.partitions}: a topic's partition count is for life, keys "
        "go elsewhere now. Copy its records into a new installation (SPANFOLD_TOPIC_PREFIX)"
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
    """The names of those that were missing."""
    new = [NewTopic(name, settings.partitions, settings.replication_factor, config=config) for name in names]
    made = admin.client.create_topics(new, operation_timeout=admin.timeout_s, request_timeout=admin.timeout_s)
    created = set()
    for name, future in admin.settled(made).items():
        try:
            future.result()
            created.add(name)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise
    return created


def _answer(admin: _Admin, topics: Iterable[TopicOnBroker]) -> None:
    """Return when the leader of each partition answers for it; KafkaException when one does not."""
    latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
    asked = {TopicPartition(each.name, partition): latest for each in topics for partition in range(each.partitions)}
    if asked:
        for future in admin.settled(admin.client.list_offsets(asked, request_timeout=admin.timeout_s)).values():
            future.result()


def _described(admin: _Admin, wanted: Mapping[str, Topic]) -> list[TopicOnBroker]:
    described = admin.client.describe_topics(TopicCollection(sorted(wanted)), request_timeout=admin.timeout_s)
    return [_on_broker(wanted[name], future) for name, future in admin.settled(described).items()]


def _on_broker(topic: Topic, described: "Future[Any]") -> TopicOnBroker:
    found = described.result()
    return TopicOnBroker(topic, found.name, str(found.topic_id), len(found.partitions))


def _configs(admin: _Admin, names: Sequence[str]) -> dict[str, dict[str, str]]:
    resources = [ConfigResource(ResourceType.TOPIC, name) for name in names]
    described = admin.client.describe_configs(resources, request_timeout=admin.timeout_s)
    return {
        resource.name: {entry.name: entry.value for entry in future.result().values()}
        for resource, future in admin.settled(described).items()
    }


def _differences(
    found: Iterable[TopicOnBroker], configs: Mapping[str, Mapping[str, str]], settings: Settings
) -> list[str]:
    lines = []
    for each in found:
        if each.partitions != settings.partitions:
            lines.append(
                f"- {each.name} has {each.partitions} partitions, expected {settings.partitions}: "
                f"a topic's partition count is for life; set SPANFOLD_PARTITIONS={each.partitions}, "
                "or use another SPANFOLD_TOPIC_PREFIX"
            )
        for key, expected in topic_config(settings).items():
            actual = configs[each.name].get(key)
            if actual != expected:
                lines.append(
                    f"- {each.name} has {key}={actual}, expected {expected}: set it with "
                    f"`kafka-configs.sh --alter --topic {each.name} --add-config {key}={expected}`"
                )
    return lines
