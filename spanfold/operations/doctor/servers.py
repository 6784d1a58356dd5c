"""Kafka, Postgres and the workers: whether they answer, and are as they must be."""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import psycopg
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from spanfold.embedded.process_ends import CRASH_LOOP, ProcessRecord, process_records
from spanfold.kafka.client import kafka_config
from spanfold.kafka.topics import ensure_topics
from spanfold.language.errors import SpanfoldError
from spanfold.language.settings import Settings
from spanfold.language.topics import TopicOnBroker, installed_topics
from spanfold.operations.doctor.checks import Check, CheckState
from spanfold.operations.installation import Installation, command_line
from spanfold.operations.process_urls import process_urls
from spanfold.operations.worker_group import REQUEST_TIMEOUT_S
from spanfold.postgres.connections import connect
from spanfold.postgres.errors import translated

CLOCK_TOLERANCE_S: Final = 1.0


def server_checks(target: Installation) -> Iterator[Check]:
    """Kafka, Postgres, and, where both answer, whether topics and tables are as they must be."""
    settings = target.settings
    if not settings.kafka_bootstrap and not settings.postgres_dsn:
        start = command_line(settings.home, "up", "--detach")
        yield Check(
            "servers",
            CheckState.OK,
            f"none is configured, and no stack is running in {settings.home}",
            f"start one with `{start}`",
        )
        return
    topics: list[TopicOnBroker] = []
    if settings.kafka_bootstrap:
        kafka = _kafka(settings)
        yield kafka
        if kafka.state is CheckState.OK:
            yield _topics(settings, topics)
    if settings.postgres_dsn:
        yield from _postgres(target, topics)


def _kafka(settings: Settings) -> Check:
    try:
        metadata = AdminClient(kafka_config(settings)).list_topics(timeout=REQUEST_TIMEOUT_S)
    except KafkaException as error:
        finding = f"Kafka at {settings.kafka_bootstrap} did not answer: {error.args[0].str()}"
        return Check(
            "Kafka", CheckState.FAIL, finding, "check SPANFOLD_KAFKA_BOOTSTRAP, and whether that Kafka is running"
        )
    brokers = ", ".join(f"{broker.host}:{broker.port}" for broker in metadata.brokers.values())
    return Check("Kafka", CheckState.OK, f"{settings.kafka_bootstrap} answers: {brokers}")


def _topics(settings: Settings, on_broker: list[TopicOnBroker]) -> Check:
    """Whether topic is there, with its settings; nothing is created. Those that are there are added to `on_broker`."""
    names = [topic.on_broker(settings.topic_prefix) for topic in installed_topics()]
    known = AdminClient(kafka_config(settings)).list_topics(timeout=REQUEST_TIMEOUT_S).topics
    if missing := [name for name in names if name not in known]:
        advice = f"create them: `{command_line(settings.home, 'migrate')}`"
        return Check("Topics", CheckState.FAIL, f"missing on Kafka: {', '.join(missing)}", advice)
    try:
        on_broker += ensure_topics(settings).values()
    except SpanfoldError as error:
        return Check("Topics", CheckState.FAIL, str(error))
    return Check(
        "Topics", CheckState.OK, ", ".join(f"{topic.name} ({topic.partitions} partitions)" for topic in on_broker)
    )


def _postgres(target: Installation, topics: list[TopicOnBroker]) -> Iterator[Check]:
    try:
        with connect(target.dsn, "spanfold doctor") as connection:
            yield _answers(connection)
            yield _tables(target.settings, connection, topics)
    except psycopg.errors.InsufficientPrivilege as error:
        advice = "to check tables, use a login with the role that owns them"
        yield Check("Tables", CheckState.WARN, f"not checked: {error.diag.message_primary}", advice)
    except psycopg.OperationalError as error:
        advice = "check SPANFOLD_POSTGRES_DSN, and whether that Postgres is running"
        yield Check("Postgres", CheckState.FAIL, str(translated(error)), advice)
    except SpanfoldError as error:
        yield Check("Postgres", CheckState.FAIL, str(error))


def _answers(connection: psycopg.Connection[Any]) -> Check:
    before = time.time()
    row = connection.execute("SELECT version(), extract(epoch FROM clock_timestamp())::float8").fetchone()
    after = time.time()
    software, clock = row or ("", 0.0)
    ahead_s = clock - (before + after) / 2
    finding = f"{connection.info.host}:{connection.info.port} answers: {software.partition(' on ')[0]}"
    if abs(ahead_s) > CLOCK_TOLERANCE_S + (after - before):
        finding += f"; its clock is {abs(ahead_s):.1f} s {'ahead of' if ahead_s > 0 else 'behind'} this machine's"
        return Check("Postgres", CheckState.WARN, finding, "keep the clocks in step (NTP)")
    return Check("Postgres", CheckState.OK, finding)


def _tables(settings: Settings, connection: psycopg.Connection[Any], topics: list[TopicOnBroker]) -> Check:
    """Whether the database is of this version, and of these topics."""
    migrate = f"`{command_line(settings.home, 'migrate')}`"
    try:
        revisions = [revision for (revision,) in connection.execute(SCHEMA_VERSION).fetchall()]
        registered = dict(connection.execute(REGISTERED).fetchall())
    except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
        return Check("Tables", CheckState.FAIL, "this database has no spanfold tables", f"create them: {migrate}")
    newest = _newest_revision()
    if revisions != [newest]:
        finding = f"the tables have schema version {', '.join(revisions) or 'none'}, this spanfold needs {newest}"
        return Check("Tables", CheckState.FAIL, finding, f"{migrate}, or use the spanfold version that created them")
    strange = [topic.name for topic in topics if registered.get(topic.topic.name, topic.topic_id) != topic.topic_id]
    if strange:
        finding = f"the tables were folded from other topics than {', '.join(strange)} of this Kafka"
        return Check("Tables", CheckState.FAIL, finding, "configure that Kafka, or use an empty database")
    if absent := [topic.name for topic in topics if topic.topic.name not in registered]:
        return Check(
            "Tables",
            CheckState.FAIL,
            f"topics not registered in the database: {', '.join(absent)}",
            f"register them: {migrate}",
        )
    return Check("Tables", CheckState.OK, f"schema version {newest}; topics {', '.join(sorted(registered))}")


def _newest_revision() -> str | None:
    # imported here: Alembic takes a second
    from alembic.script import ScriptDirectory

    from spanfold.migrations import alembic_config

    return ScriptDirectory.from_config(alembic_config()).get_current_head()


SCHEMA_VERSION: Final = "SELECT version_num FROM public.schema_version"
REGISTERED: Final = "SELECT topic, broker_topic_id FROM spanfold_core.topics"


def worker_checks(target: Installation) -> Iterator[Check]:
    """What topic worker of the stack says of itself."""
    for name, url in (process_urls(target.stack) if target.stack else {}).items():
        try:
            with urllib.request.urlopen(f"{url}/healthz", timeout=REQUEST_TIMEOUT_S) as answer:  # noqa: S310  # of a worker
                answer.read()
            yield Check(name, CheckState.OK, f"healthy: {url}/healthz")
        except urllib.error.HTTPError as error:
            problems = json.loads(error.read())["problems"]
            yield Check(name, CheckState.FAIL, "; ".join(problems), f"its log: {_log(target, name)}")
        except OSError as error:
            yield Check(name, CheckState.FAIL, f"{url} does not answer: {error}", f"its log: {_log(target, name)}")


def end_checks(target: Installation) -> Iterator[Check]:
    """Why programs of the home last ended; a failure when one keeps ending."""
    now = datetime.now(UTC)
    for record in process_records(target.settings.home):
        if record.last_end is None:
            continue
        name, log = f"last end of {record.name}", f"its log: {target.settings.home / 'logs' / record.name}.log"
        loop = record.crash_loop(now) if target.stack else None
        if loop:
            yield Check(name, CheckState.FAIL, loop, log)
        else:
            yield Check(
                name,
                CheckState.WARN if _is_recent(record, now) else CheckState.OK,
                record.last_end.explanation(now),
                log,
            )


def _is_recent(record: ProcessRecord, now: datetime) -> bool:
    return any(now - end < CRASH_LOOP for end in record.recent_ends)


def _log(target: Installation, name: str) -> Path | str:
    return target.stack.logs / f"{name}.log" if target.stack else "?"
