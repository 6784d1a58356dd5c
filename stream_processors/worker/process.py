"""Runs a worker as a process: prepares topics and tables, then folds until it is told to stop."""

import logging
import sys
from collections.abc import Callable, Set
from typing import Any, TextIO, cast

import faust
import structlog
from faust.types import TP

from spanfold.http.process_urls import leave_url
from spanfold.http.worker_server import serve
from spanfold.language.errors import SpanfoldError
from spanfold.language.settings import Settings
from spanfold.language.throttled_log import UnfailingStream, throttle_loggers
from spanfold.language.topics import TopicOnBroker
from spanfold.postgres.dsn import postgres_dsn
from spanfold.stream_processors.worker import gc_tuning
from spanfold.stream_processors.worker.lag_watch import Watch
from spanfold.stream_processors.worker.waiting import (
    await_tables,
    await_topics,
    end_on_signals,
)

log = structlog.get_logger("spanfold.worker")


def begin(settings: Settings) -> tuple[str, dict[str, TopicOnBroker]]:
    """Once topics and tables are there: the DSN, and the topics by name."""
    configure_logging(settings.log_level)
    end_on_signals()
    dsn = postgres_dsn(settings)
    topics = await_topics(settings)
    for notice in await_tables(dsn, topics.values()):
        log.warning("left_as_it_is", why=notice)
    return dsn, topics


def run(settings: Settings, app: Any, watch: Watch, more_problems: Callable[[], list[str]]) -> None:
    """Fold until SIGTERM or SIGINT; ends the process. Raises the SpanfoldError that ended the app. /healthz tells what the watch
    finds, and `more_problems`.
    """
    _tell_owned(app, watch)
    _serve(settings, watch, more_problems)
    gc_tuning.tune()
    worker = Worker(app, loglevel=settings.log_level, quiet=True, redirect_stdouts=False)
    try:
        worker.execute_from_commandline()
    except SystemExit:
        if isinstance(worker.crash_reason, SpanfoldError):
            raise worker.crash_reason from None
        raise
    finally:
        watch.stop()


class Worker(faust.Worker):
    """Ends once all tasks have ended. The stock one then waits another second."""

    async def _sentinel_task(self) -> None:
        return


def _tell_owned(app: Any, watch: Watch) -> None:
    """Let the watch know which partitions the group assigns to this worker."""

    def assigned(_app: Any, partitions: Set[TP], **_: Any) -> None:
        watch.owned = [(tp.topic, tp.partition) for tp in partitions]

    def revoked(_app: Any, _partitions: Set[TP], **_: Any) -> None:
        watch.owned = ()

    app.on_partitions_assigned.connect(assigned, weak=False)
    app.on_partitions_revoked.connect(revoked, weak=False)


def _serve(settings: Settings, watch: Watch, more_problems: Callable[[], list[str]]) -> None:
    """Begin to watch and to answer; the URL is logged, and left where `spanfold status` looks for it."""
    url = serve(settings.worker_host, settings.worker_port, watch.metrics.registry, lambda: [*more_problems(), *watch.unwell()])
    watch.start()
    log.info("serving", metrics=f"{url}/metrics", health=f"{url}/healthz")
    leave_url(settings.home, url)


def configure_logging(level: str) -> None:
    """One line an event, with its fields, to standard error. aiokafka would write a hundred a second while Kafka is away."""
    logging.basicConfig(level=level)
    throttle_loggers("aiokafka")
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level]),
        logger_factory=structlog.PrintLoggerFactory(cast(TextIO, UnfailingStream(sys.stderr))),
    )
