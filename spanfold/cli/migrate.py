"""`spanfold migrate`: topics and tables as this version needs them."""

from typing import Any, Final

import psycopg
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from spanfold.cli.output import print_json
from spanfold.cli.stack import (
    REQUEST_TIMEOUT_S,
    AsJson,
    Home,
    chosen_settings,
    named_postgres,
    prepare,
    running_settings,
    tell_notice,
    unreachable_postgres,
)
from spanfold.kafka.client import kafka_config
from spanfold.language.errors import LogUnavailable
from spanfold.language.settings import Settings

SCHEMA_VERSION: Final = "SELECT version_num FROM public.schema_version"
GENERATIONS: Final = "SELECT projection, generation FROM spanfold_core.generations"


def migrate(home: Home = None, as_json: AsJson = False) -> None:
    """Create or check the topics, and upgrade the database.

    Prints what it did; running it again changes nothing. Existing topics are checked but never altered. A projection that
    is new, or that this version folds differently, is left as it is and named; rebuild it.

    Example: SPANFOLD_KAFKA_BOOTSTRAP=… SPANFOLD_POSTGRES_DSN=… spanfold migrate
    """
    settings = running_settings(chosen_settings(home))
    topics_before, tables_before = _topics(settings), _tables(settings)
    left: list[str] = []
    topics = prepare(settings, tell=left.append)
    done = [
        *(f"created topic {each.name} with {each.partitions} partitions"
          for each in topics.values() if each.name not in topics_before),
        *(f"created {each}" for each in _tables(settings) if each not in tables_before),
    ]  # fmt: skip
    checked = [each.name for each in topics.values() if each.name in topics_before]
    if as_json:
        print_json({"done": done, "checked": checked, "left": left})
    elif done:
        print("\n".join(done))
    elif not left:
        print(f"nothing to do: {', '.join(checked)} and the database are up to date")
    for notice in left:
        tell_notice(notice)


def _topics(settings: Settings) -> set[str]:
    try:
        return set(AdminClient(kafka_config(settings)).list_topics(timeout=REQUEST_TIMEOUT_S).topics)
    except KafkaException as error:
        raise LogUnavailable(f"Kafka at {settings.kafka_bootstrap} did not answer: {error.args[0].str()}") from error


def _tables(settings: Settings) -> list[str]:
    """What there is in the database of ours, in words."""
    dsn = named_postgres(settings)
    try:
        with psycopg.connect(dsn, connect_timeout=5, autocommit=True) as connection:
            revisions = _rows(connection, SCHEMA_VERSION)
            generations = _rows(connection, GENERATIONS)
    except psycopg.OperationalError as error:
        raise unreachable_postgres(error) from error
    return [f"the tables of schema version {each}" for (each,) in revisions] + [
        f"generation {generation} of projection {projection}" for projection, generation in generations
    ]


def _rows(connection: psycopg.Connection[Any], query: str) -> list[tuple[Any, ...]]:
    try:
        return connection.execute(query.encode()).fetchall()
    except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
        return []
