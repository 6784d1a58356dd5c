"""Topics and tables as this version needs them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import psycopg
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from spanfold.kafka.client import kafka_config
from spanfold.language.errors import LogUnavailable
from spanfold.language.settings import Settings
from spanfold.operations.installation import Installation
from spanfold.operations.postgres_errors import reads_translated
from spanfold.operations.worker_group import REQUEST_TIMEOUT_S
from spanfold.postgres.connections import connect

SCHEMA_VERSION: Final = "SELECT version_num FROM public.schema_version"
GENERATIONS: Final = "SELECT projection, generation FROM spanfold_core.generations"


@dataclass(frozen=True, slots=True)
class MigrationReport:
    """What was `done`, in a line each; topics that were there and are as they must be; and a line about each projection that was
    `left` as it is, with what to do.
    """

    done: Sequence[str]
    checked: Sequence[str]
    left: Sequence[str]


def migrate(installation: Installation) -> MigrationReport:
    """Create or check the topics, and upgrade the database. Doing it again changes nothing. Raises Misconfigured, LogUnavailable
    or StoreUnavailable.
    """
    topics_before, tables_before = _topics(installation.settings), list(_tables(installation.dsn))
    left: list[str] = []
    topics = installation.prepare(left.append).values()
    created = [
        f"created topic {topic.name} with {topic.partitions} partitions"
        for topic in topics
        if topic.name not in topics_before
    ]
    created += [f"created {table}" for table in _tables(installation.dsn) if table not in tables_before]
    return MigrationReport(created, [topic.name for topic in topics if topic.name in topics_before], left)


def _topics(settings: Settings) -> set[str]:
    try:
        return set(AdminClient(kafka_config(settings)).list_topics(timeout=REQUEST_TIMEOUT_S).topics)
    except KafkaException as error:
        raise LogUnavailable(f"Kafka at {settings.kafka_bootstrap} did not answer: {error.args[0].str()}") from error


def _tables(dsn: str) -> Iterator[str]:
    """What there is of spanfold in the database, in words."""
    with reads_translated(), connect(dsn, "spanfold migrate") as connection:
        for (revision,) in _rows(connection, SCHEMA_VERSION):
            yield f"the tables of schema version {revision}"
        for projection, generation in _rows(connection, GENERATIONS):
            yield f"generation {generation} of projection {projection}"


def _rows(connection: psycopg.Connection[Any], query: str) -> list[tuple[Any, ...]]:
    try:
        return connection.execute(query.encode()).fetchall()
    except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
        return []
