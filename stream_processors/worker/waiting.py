"""A worker that starts while Kafka or Postgres is away waits for them, and can be told to stop meanwhile."""

import signal
from collections.abc import Callable, Collection
from types import FrameType
from typing import Any, Final, NoReturn

import psycopg
import structlog
from sqlalchemy.exc import OperationalError
from tenacity import RetryCallState

from spanfold.kafka.topics import ensure_snapshots_topic, ensure_topics
from spanfold.language.errors import LogUnavailable
from spanfold.language.retries import error_of, while_unavailable
from spanfold.language.settings import Settings
from spanfold.language.topics import TopicOnBroker
from spanfold.postgres import retries
from spanfold.postgres.connections import DEFAULTS
from spanfold.postgres.dsn import url_with_defaults
from spanfold.postgres.errors import translated
from spanfold.projections.generations import lifecycle
from spanfold.projections.projection import installed

log = structlog.get_logger("spanfold.worker")

KAFKA_TIMEOUT_S: Final = 10.0
"""Of one attempt; librdkafka connects again within it by itself."""


def end_on_signals() -> None:
    """From here until Faust takes over, SIGTERM and SIGINT end the process with exit code 0."""

    def end(_number: int, _frame: FrameType | None) -> NoReturn:
        raise SystemExit(0)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)


def await_topics(settings: Settings) -> dict[str, TopicOnBroker]:
    """The topics, once Kafka is there; see ensure_topics. Misconfigured when that finds something amiss."""
    return while_unavailable(lambda: ensure_topics(settings, timeout_s=KAFKA_TIMEOUT_S), _say)


def await_snapshots_topic(settings: Settings) -> None:
    """The compacted topic of snapshots, once Kafka is there; see ensure_snapshots_topic."""
    while_unavailable(lambda: ensure_snapshots_topic(settings, timeout_s=KAFKA_TIMEOUT_S), _say)


def await_tables(dsn: str, topics: Collection[TopicOnBroker]) -> list[str]:
    """Prepare the database, once Postgres is there; see lifecycle.prepare. Misconfigured when it refuses us."""
    bounded = url_with_defaults(dsn, connect_timeout=DEFAULTS["connect_timeout"])
    return while_unavailable(lambda: _prepare(bounded, topics), _say)


def patiently_on(dsn: str, work: Callable[[psycopg.Connection[Any]], None]) -> None:
    """Do it on a connection of its own, once Postgres is there."""
    retries.while_away(dsn, "spanfold worker", work, _say)


def _prepare(dsn: str, topics: Collection[TopicOnBroker]) -> list[str]:
    try:
        return lifecycle.prepare(dsn, topics, installed())
    except OperationalError as error:
        raise translated(error.orig) from error


def _say(state: RetryCallState) -> None:
    error = error_of(state)
    away = "Kafka" if isinstance(error, LogUnavailable) else "Postgres"
    log.warning(
        "away", what=away, attempt=state.attempt_number, again_in_s=round(state.upcoming_sleep, 1), why=str(error)
    )
