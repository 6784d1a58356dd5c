"""Runs a worker as a process: prepares topics and tables, then folds until it is told to stop."""

import logging
import sys
from collections.abc import Callable, MutableMapping, Set
from typing import Any, Final, TextIO, cast

import faust
import structlog
from faust.types import TP

from spanfold.http.process_urls import leave_url
from spanfold.http.worker_server import serve
from spanfold.language.errors import SpanfoldError
from spanfold.language.settings import Settings
from spanfold.language.throttled_log import OUTAGE_S, Throttle, UnfailingStream, throttle_loggers
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

REPEATED_EVENTS: Final = frozenset({"postgres_retry", "away", "asking_again", "feeding_again"})


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
    url = serve(
        settings.worker_host, settings.worker_port, watch.metrics.registry, lambda: [*more_problems(), *watch.unwell()]
    )
    watch.start()
    log.info("serving", metrics=f"{url}/metrics", health=f"{url}/healthz")
    leave_url(settings.home, url)


class ThrottledEvents:
    """A structlog processor: of the events that repeat while a server is away, it lets through what Throttle does."""

    def __init__(self) -> None:
        self._throttle = Throttle(longest_s=OUTAGE_S)

    def __call__(self, _logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """The event, with how many like it were held back; raises DropEvent to hold it back."""
        if event["event"] in REPEATED_EVENTS:
            held = self._throttle.passes(event["event"])
            if held is None:
                raise structlog.DropEvent
            if held:
                event["held_back"] = held
        return event


def configure_logging(level: str) -> None:
    """One line an event, with its fields, to standard error. aiokafka would write a hundred a second while Kafka is away."""
    logging.basicConfig(level=level)
    throttle_loggers("aiokafka")
    structlog.configure(
        processors=[ThrottledEvents(), *structlog.get_config()["processors"]],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level]),
        logger_factory=structlog.PrintLoggerFactory(cast(TextIO, UnfailingStream(sys.stderr))),
    )
