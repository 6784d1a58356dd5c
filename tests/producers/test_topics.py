import uuid

import pytest
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType

from spanfold.kafka.topics import ensure_topics, topic_config
from spanfold.language.errors import LogUnavailable, Misconfigured
from spanfold.language.settings import Settings
from spanfold.language.topics import TRACES
from tests.support.waiting import until


@pytest.fixture
def admin(kafka_bootstrap: str) -> AdminClient:
    return AdminClient({"bootstrap.servers": kafka_bootstrap})


def _config(admin: AdminClient, name: str) -> dict[str, str]:
    resource = ConfigResource(ResourceType.TOPIC, name)
    entries = admin.describe_configs([resource])[resource].result()
    return {entry.name: entry.value for entry in entries.values()}


def test_a_topic_is_created_with_our_settings_and_found_again(
    admin: AdminClient, kafka_bootstrap: str, topic_prefix: str
) -> None:
    settings = Settings(kafka_bootstrap=kafka_bootstrap, topic_prefix=topic_prefix, partitions=3)
    made = ensure_topics(settings)["spanfold.traces"]
    assert made.name == f"{topic_prefix}spanfold.traces"
    assert made.partitions == 3
    found = _config(admin, made.name)
    assert topic_config(settings).items() <= found.items()
    assert found["message.timestamp.type"] == "LogAppendTime"
    assert (found["retention.ms"], found["retention.bytes"], found["cleanup.policy"]) == ("-1", "-1", "delete")
    assert ensure_topics(settings)["spanfold.traces"] == made


def test_another_partition_count_is_refused_and_nothing_is_altered(settings: Settings) -> None:
    with pytest.raises(Misconfigured, match=r"has 3 partitions, expected 5.*SPANFOLD_PARTITIONS=3"):
        ensure_topics(settings.model_copy(update={"partitions": 5}))
    assert ensure_topics(settings)["spanfold.traces"].partitions == 3


def test_a_foreign_topic_of_that_name_is_refused_with_every_difference(
    admin: AdminClient, kafka_bootstrap: str, topic_prefix: str
) -> None:
    name = TRACES.on_broker(topic_prefix)
    foreign = NewTopic(name, 4, 1, config={"retention.ms": "604800000"})
    admin.create_topics([foreign])[name].result()
    with pytest.raises(Misconfigured) as refusal:
        ensure_topics(Settings(kafka_bootstrap=kafka_bootstrap, topic_prefix=topic_prefix))
    assert f"{name} has retention.ms=604800000, expected -1" in str(refusal.value)
    assert f"{name} has message.timestamp.type=CreateTime, expected LogAppendTime" in str(refusal.value)
    assert _config(admin, name)["retention.ms"] == "604800000"


def test_a_recreated_topic_has_another_id(admin: AdminClient, settings: Settings) -> None:
    before = ensure_topics(settings)["spanfold.traces"]
    admin.delete_topics([before.name])[before.name].result()
    # the controller knows first, the broker a moment later
    until(lambda: before.name not in admin.list_topics(timeout=10).topics, "the topic's end")
    after = ensure_topics(settings)["spanfold.traces"]
    assert after.topic_id != before.topic_id


def test_no_kafka_is_the_logs_fault_and_no_address_the_operators() -> None:
    with pytest.raises(LogUnavailable, match=r"127\.0\.0\.1:1 did not answer"):
        ensure_topics(Settings(kafka_bootstrap="127.0.0.1:1"), timeout_s=1)
    with pytest.raises(Misconfigured, match="SPANFOLD_KAFKA_BOOTSTRAP"):
        ensure_topics(Settings(kafka_bootstrap=None))


def test_too_many_replicas_are_refused_in_kafkas_words(kafka_bootstrap: str) -> None:
    settings = Settings(kafka_bootstrap=kafka_bootstrap, topic_prefix=uuid.uuid4().hex, replication_factor=9)
    with pytest.raises(Misconfigured, match=r"(?i)replication factor"):
        ensure_topics(settings)
