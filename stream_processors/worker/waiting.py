"""A worker that starts while Kafka or Postgres is away waits for them, and can be told to stop meanwhile."""

import signal
from collections.abc import Callable, Collection
from types import FrameType
from typing import Any, Final, NoReturn, TypeVar

import psycopg
import structlog
from sqlalchemy.exc import OperationalError
from tenacity import RetryCallState, Retrying, retry_if_exception_type, wait_random_exponential

from spanfold.kafka.topics import ensure_snapshots_topic, ensure_topics
from spanfold.language.errors import LogUnavailable, StoreUnavailable
from spanfold.language.settings import Settings
from spanfold.language.topics import TopicOnBroker
from spanfold.postgres.conninfo import url_with_defaults
from spanfold.postgres.worker_dsn import DEFAULTS, worker_dsn
from spanfold.projections.generations import lifecycle
from spanfold.projections.projection import installed
from spanfold.stream_processors.worker.committer import is_refusal, refused

Result = TypeVar("Result")

log = structlog.get_logger("spanfold.worker")

KAFKA_TIMEOUT_S: Final = 10.0
"""Of one attempt; librdkafka connects again within it by itself."""

LONGEST_PAUSE_S: Final = 10.0


def end_on_signals() -> None:
    """From here until Faust takes over, SIGTERM and SIGINT end the process with exit code 0."""

    def end(_number: int, _frame: FrameType | None) -> NoReturn:
        raise SystemExit(0)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)


def await_topics(settings: Settings) -> dict[str, TopicOnBroker]:
    """The topics, once Kafka is there; see ensure_topics. Misconfigured when that finds something amiss."""
    return patiently(lambda: ensure_topics(settings, timeout_s=KAFKA_TIMEOUT_S))


def await_snapshots_topic(settings: Settings) -> None:
    """The compacted topic of snapshots, once Kafka is there; see ensure_snapshots_topic."""
    patiently(lambda: ensure_snapshots_topic(settings, timeout_s=KAFKA_TIMEOUT_S))


def await_tables(dsn: str, topics: Collection[TopicOnBroker]) -> list[str]:
    """Prepare the database, once Postgres is there; see lifecycle.prepare. Misconfigured when it refuses us."""
    bounded = url_with_defaults(dsn, connect_timeout=DEFAULTS["connect_timeout"])
    return patiently(lambda: _prepare(bounded, topics))


def patiently_on(dsn: str, work: Callable[[psycopg.Connection[Any]], None]) -> None:
    """Do it on a connection of its own, once Postgres is there."""

    def attempt() -> None:
        try:
            with psycopg.connect(worker_dsn(dsn, "spanfold worker"), autocommit=True) as connection:
                work(connection)
        except psycopg.OperationalError as error:
            if is_refusal(error):
                raise refused(error) from error
            raise StoreUnavailable(f"Postgres can't be used: {' '.join(str(error).split())}") from error

    patiently(attempt)


def patiently(work: Callable[[], Result]) -> Result:
    """Do it again, with growing random pauses, for as long as Kafka or Postgres is away; a line says so each time."""
    attempts = Retrying(
        retry=retry_if_exception_type((LogUnavailable, StoreUnavailable)),
        wait=wait_random_exponential(multiplier=0.5, max=LONGEST_PAUSE_S),
        before_sleep=_say,
    )
    return attempts(work)


def _prepare(dsn: str, topics: Collection[TopicOnBroker]) -> list[str]:
    try:
        return lifecycle.prepare(dsn, topics, installed())
    except OperationalError as error:
        if error.orig is not None and is_refusal(error.orig):
            raise refused(error.orig) from error
        raise StoreUnavailable(f"Postgres can't be used: {' '.join(str(error.orig).split())}") from error


def _say(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    away = "Kafka" if isinstance(error, LogUnavailable) else "Postgres"
    log.warning(
        "away", what=away, attempt=state.attempt_number, again_in_s=round(state.upcoming_sleep, 1), why=str(error)
    )
