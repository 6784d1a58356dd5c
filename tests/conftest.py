"""The stack that the tests run on, for real: from environment URLs, else testcontainers where a Docker engine answers,
else the embedded one. Each test has a topic prefix and a database of its own.
"""

import os
import signal
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest

from producers.topics import ensure_topics
from projections import generations
from projections.projection import installed
from spanfold.embedded.stack import EmbeddedStack
from spanfold.settings import Settings
from spanfold.topics import TopicOnBroker

# a job that a script runs in the background ignores SIGINT, and so would all that it starts; some tests send it
signal.signal(signal.SIGINT, signal.default_int_handler)


@dataclass(frozen=True)
class Servers:
    kafka_bootstrap: str
    postgres_dsn: str
    kind: str


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
def postgres_dsn(servers: Servers) -> Iterator[str]:
    """An empty database of this test's own."""
    name = f"t{uuid.uuid4().hex[:8]}"
    with psycopg.connect(servers.postgres_dsn, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        yield servers.postgres_dsn.rsplit("/", 1)[0] + f"/{name}"
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
def topics(stack_settings: Settings) -> dict[str, TopicOnBroker]:
    """spanfold's topics, under this test's prefix."""
    return ensure_topics(stack_settings)


@pytest.fixture
def ledger(stack_settings: Settings, topics: dict[str, TopicOnBroker]) -> Iterator[psycopg.Connection[Any]]:
    """The database, prepared for the topics; an autocommit connection to it."""
    assert stack_settings.postgres_dsn
    generations.prepare(stack_settings.postgres_dsn, topics.values(), installed())
    with psycopg.connect(stack_settings.postgres_dsn, autocommit=True) as connection:
        yield connection
