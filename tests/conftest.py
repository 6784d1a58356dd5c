"""The stack that the tests run on, for real: from environment URLs, else testcontainers where a Docker engine answers,
else the embedded one. Each test has a topic prefix and a database of its own.
"""

import os
import signal
import uuid
from collections.abc import Iterator
from concurrent.futures import wait
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from confluent_kafka.admin import AdminClient

from spanfold.embedded.stack import EmbeddedStack
from spanfold.kafka.client import kafka_config
from spanfold.kafka.topics import ensure_topics
from spanfold.language.settings import Settings
from spanfold.language.topics import TopicOnBroker
from spanfold.projections.generations import lifecycle
from spanfold.projections.projection import installed

# a job that a script runs in the background ignores SIGINT, and so would all that it starts; some tests send it
signal.signal(signal.SIGINT, signal.default_int_handler)


@dataclass(frozen=True)
class Servers:
    kafka_bootstrap: str
    postgres_dsn: str
    kind: str

    def dsn_of(self, database: str) -> str:
        """Another database of the same server."""
        return self.postgres_dsn.rsplit("/", 1)[0] + f"/{database}"


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    kafka, postgres = os.environ.get("SPANFOLD_TEST_KAFKA"), os.environ.get("SPANFOLD_TEST_POSTGRES")
    if kafka and postgres:
        yield Servers(kafka, postgres, "environment")
    elif _docker_answers():
        yield from _containers()
    else:
        with EmbeddedStack(ephemeral=True) as stack:
            yield Servers(stack.state.kafka_bootstrap, stack.state.postgres_dsn, "embedded")


def _docker_answers() -> bool:
    import docker

    try:
        docker.from_env().ping()
    except docker.errors.DockerException:
        return False
    return True


def _containers() -> Iterator[Servers]:
    from testcontainers.community.kafka import KafkaContainer
    from testcontainers.community.postgres import PostgresContainer

    with (
        KafkaContainer("confluentinc/cp-kafka:8.0.0") as kafka,
        PostgresContainer("postgres:18", driver=None) as postgres,
    ):
        yield Servers(kafka.get_bootstrap_server(), postgres.get_connection_url(), "testcontainers")


@pytest.fixture
def kafka_bootstrap(servers: Servers) -> str:
    return servers.kafka_bootstrap


@pytest.fixture
def topic_prefix() -> str:
    return f"t{uuid.uuid4().hex[:8]}."


@pytest.fixture
def postgres_dsn(servers: Servers, request: pytest.FixtureRequest) -> Iterator[str]:
    """A database of this test's own: an empty one, or a copy of `prepared_database` for those that take `ledger`."""
    name = f"t{uuid.uuid4().hex[:8]}"
    like = request.getfixturevalue("prepared_database") if "ledger" in request.fixturenames else "template1"
    with psycopg.connect(servers.postgres_dsn, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {like}")
        yield servers.dsn_of(name)
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def prepared_database(servers: Servers) -> Iterator[str]:
    """The name of a database that has been prepared for topics of its own. A copy is there much sooner than another one."""
    name = f"t{uuid.uuid4().hex[:8]}"
    settings = Settings(kafka_bootstrap=servers.kafka_bootstrap, topic_prefix=f"{name}.")
    with psycopg.connect(servers.postgres_dsn, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        lifecycle.prepare(servers.dsn_of(name), ensure_topics(settings).values(), installed())
        yield name
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def stack_settings(kafka_bootstrap: str, postgres_dsn: str, topic_prefix: str) -> Settings:
    return Settings(
        kafka_bootstrap=kafka_bootstrap,
        postgres_dsn=postgres_dsn,
        topic_prefix=topic_prefix,
        group=topic_prefix.rstrip("."),
    )


@pytest.fixture
def topics(stack_settings: Settings) -> Iterator[dict[str, TopicOnBroker]]:
    """spanfold's topics, under this test's prefix; the broker is rid of them afterwards."""
    found = ensure_topics(stack_settings)
    yield found
    admin = AdminClient(kafka_config(stack_settings))
    wait(admin.delete_topics([each.name for each in found.values()]).values(), 10)


@pytest.fixture
def ledger(stack_settings: Settings, topics: dict[str, TopicOnBroker]) -> Iterator[psycopg.Connection[Any]]:
    """The database, prepared for the topics; an autocommit connection to it."""
    assert stack_settings.postgres_dsn
    with psycopg.connect(stack_settings.postgres_dsn, autocommit=True) as connection:
        for each in topics.values():
            registered = connection.execute(REGISTERED_AS, (each.name, each.topic_id, each.topic.name, each.partitions))
            assert registered.rowcount == 1, f"{each} is not what the database was prepared for"
        yield connection


REGISTERED_AS = """
UPDATE spanfold_core.topics SET broker_name = %s, broker_topic_id = %s WHERE topic = %s AND partitions = %s
"""
