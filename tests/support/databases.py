"""Databases of a test's own, and the settings that lead to them.

A prepared database is made once, and copied for each test that takes `ledger`: that is much sooner there than another one.
"""

import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import psycopg
import pytest

from spanfold.language.settings import Settings
from spanfold.language.topics import TopicOnBroker, installed_topics
from spanfold.projections.generations import lifecycle
from spanfold.projections.projection import installed
from tests.support.servers import Servers

Ledger = psycopg.Connection[Any]
"""An autocommit connection to a database that has been prepared."""

NO_KAFKA: Final = "127.0.0.1:1"
"""Where nothing listens."""


def uses_kafka(request: pytest.FixtureRequest) -> bool:
    """Whether the test takes `kafka_bootstrap`, itself or through another fixture."""
    return "kafka_bootstrap" in request.fixturenames


@contextmanager
def database(servers: Servers, like: str = "template1") -> Iterator[str]:
    """The DSN of a database that is there until the block ends: a copy of the one named `like`."""
    name = f"t{uuid.uuid4().hex[:8]}"
    with psycopg.connect(servers.postgres_dsn, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {like}".encode())
        try:
            yield servers.dsn_of(name)
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def topics_nowhere(settings: Settings) -> dict[str, TopicOnBroker]:
    """spanfold's topics as a broker would describe them that has them under this prefix; by name."""
    return {
        topic.name: TopicOnBroker(topic, topic.on_broker(settings.topic_prefix), str(uuid.uuid4()), settings.partitions)
        for topic in installed_topics()
    }


@pytest.fixture(scope="session")
def prepared_database(servers: Servers) -> Iterator[str]:
    """The name of a database that has been prepared for topics that are nowhere."""
    with database(servers) as dsn:
        lifecycle.prepare(dsn, topics_nowhere(Settings()).values(), installed())
        yield dsn.rpartition("/")[2]


@pytest.fixture
def template_database(prepared_database: str) -> str:
    """What the database of a test that takes `ledger` is a copy of."""
    return prepared_database


@pytest.fixture
def postgres_dsn(servers: Servers, request: pytest.FixtureRequest) -> Iterator[str]:
    """A database of this test's own: an empty one, or a copy of `template_database` for those that take `ledger`."""
    like = request.getfixturevalue("template_database") if "ledger" in request.fixturenames else "template1"
    with database(servers, like) as dsn:
        yield dsn


@pytest.fixture
def topic_prefix() -> str:
    return f"t{uuid.uuid4().hex[:8]}."


@pytest.fixture
def stack_settings(postgres_dsn: str, topic_prefix: str, request: pytest.FixtureRequest) -> Settings:
    """Settings of this test alone. They name a Kafka where nothing listens, unless the test uses Kafka."""
    return Settings(
        kafka_bootstrap=request.getfixturevalue("kafka_bootstrap") if uses_kafka(request) else NO_KAFKA,
        postgres_dsn=postgres_dsn,
        topic_prefix=topic_prefix,
        group=topic_prefix.rstrip("."),
    )


@pytest.fixture
def prepared_topics(stack_settings: Settings, request: pytest.FixtureRequest) -> dict[str, TopicOnBroker]:
    """The topics that the test's database is prepared for, by name: `topics`, or topics that are nowhere, unless the test uses
    Kafka.
    """
    if uses_kafka(request):
        topics: dict[str, TopicOnBroker] = request.getfixturevalue("topics")
        return topics
    return topics_nowhere(stack_settings)


@pytest.fixture
def ledger(stack_settings: Settings, prepared_topics: dict[str, TopicOnBroker]) -> Iterator[Ledger]:
    """The database, prepared for the topics."""
    assert stack_settings.postgres_dsn
    with psycopg.connect(stack_settings.postgres_dsn, autocommit=True) as connection:
        register(connection, prepared_topics)
        yield connection


@pytest.fixture
def second_settings(
    servers: Servers, prepared_database: str, stack_settings: Settings, prepared_topics: dict[str, TopicOnBroker]
) -> Iterator[Settings]:
    """The same topics, another group and another database, prepared for them."""
    with database(servers, prepared_database) as dsn:
        with psycopg.connect(dsn, autocommit=True) as connection:
            register(connection, prepared_topics)
        yield stack_settings.model_copy(update={"postgres_dsn": dsn, "group": dsn.rpartition("/")[2]})


@pytest.fixture
def second_ledger(second_settings: Settings) -> Iterator[Ledger]:
    """Another database, prepared for the same topics."""
    assert second_settings.postgres_dsn
    with psycopg.connect(second_settings.postgres_dsn, autocommit=True) as connection:
        yield connection


def register(ledger: Ledger, topics: Mapping[str, TopicOnBroker]) -> None:
    """Have a copy of the prepared database take these topics for those that it was prepared for."""
    for topic in topics.values():
        values = (topic.name, topic.topic_id, topic.topic.name, topic.partitions)
        registered = ledger.execute(REGISTER, values)
        assert registered.rowcount == 1, f"{topic} is not what the database was prepared for"


REGISTER: Final = """
UPDATE spanfold_core.topics SET broker_name = %s, broker_topic_id = %s WHERE topic = %s AND partitions = %s
"""
