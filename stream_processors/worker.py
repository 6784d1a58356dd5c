"""Runs a worker as a process: prepares topics and tables, then folds until it is told to stop."""

import logging
import sys
from collections.abc import Set
from typing import Any

import faust
import structlog
from faust.types import TP

from producers.throttled_log import throttle_loggers
from projections.projection import installed
from projections.states import StateStore
from projections.store import Store
from spanfold.dsn import postgres_dsn
from spanfold.errors import SpanfoldError
from spanfold.process_urls import leave_url
from spanfold.settings import Settings
from spanfold.topics import TopicOnBroker
from stream_processors import interpreter
from stream_processors.committer import Committer
from stream_processors.metrics import Metrics
from stream_processors.projector import projector_app
from stream_processors.serving import serve
from stream_processors.snapshots.app import foldings, snapshots_app
from stream_processors.snapshots.feeder import Feeder
from stream_processors.starting import await_snapshots_topic, await_tables, await_topics, end_on_signals, patiently_on
from stream_processors.watch import Watch

log = structlog.get_logger("spanfold.worker")


def run_projector(settings: Settings) -> None:
    """Wait for Kafka and Postgres, then fold into the read models until SIGTERM or SIGINT. Ends the process: exit code 0 when
    it was told to stop, 1 on an error that nobody foresaw. Raises the SpanfoldError that ended it.
    """
    dsn, topics = _begin(settings)
    store, metrics = Store(installed()), Metrics(found.topic.name for found in topics.values())
    committer = Committer(dsn, store, metrics)
    _run(
        settings,
        projector_app(settings, store, committer, topics, metrics),
        Watch(settings, dsn, topics.values(), store, metrics),
    )


def run_snapshots(settings: Settings) -> None:
    """The same for the snapshot worker, which folds what the projectors have judged into states of aggregates."""
    dsn, topics = _begin(settings)
    store = StateStore(foldings(settings))
    topics = {name: found for name, found in topics.items() if found.topic in store.topics}
    metrics = Metrics(topics)
    committer = Committer(dsn, store, metrics, "spanfold snapshots")
    patiently_on(dsn, store.register)
    watch = Watch(settings, dsn, topics.values(), store, metrics)
    app = snapshots_app(settings, store, committer, topics, metrics)
    await_snapshots_topic(settings)
    with Feeder(settings, dsn, topics.values(), store, watch):
        _run(settings, app, watch)


def _begin(settings: Settings) -> tuple[str, dict[str, TopicOnBroker]]:
    """Once topics and tables are there: the DSN, and the topics by name."""
    configure_logging(settings.log_level)
    end_on_signals()
    dsn = postgres_dsn(settings)
    topics = await_topics(settings)
    for notice in await_tables(dsn, topics.values()):
        log.warning("left_as_it_is", why=notice)
    return dsn, topics


def _run(settings: Settings, app: Any, watch: Watch) -> None:
    _tell_owned(app, watch)
    _serve(settings, watch)
    interpreter.tune()
    worker = faust.Worker(app, loglevel=settings.log_level, quiet=True, redirect_stdouts=False)
    try:
        worker.execute_from_commandline()
    except SystemExit:
        if isinstance(worker.crash_reason, SpanfoldError):
            raise worker.crash_reason from None
        raise
    finally:
        watch.stop()


def _tell_owned(app: Any, watch: Watch) -> None:
    """Let the watch know which partitions the group assigns to this worker."""

    def assigned(_app: Any, partitions: Set[TP], **_: Any) -> None:
        watch.owned = [(each.topic, each.partition) for each in partitions]

    def revoked(_app: Any, _partitions: Set[TP], **_: Any) -> None:
        watch.owned = ()

    app.on_partitions_assigned.connect(assigned, weak=False)
    app.on_partitions_revoked.connect(revoked, weak=False)


def _serve(settings: Settings, watch: Watch) -> None:
    """Begin to watch and to answer; the URL is logged, and left where `spanfold status` looks for it."""
    url = serve(settings.worker_host, settings.worker_port, watch.metrics.registry, watch.unwell)
    watch.start()
    log.info("serving", metrics=f"{url}/metrics", health=f"{url}/healthz")
    leave_url(settings.home, url)


def configure_logging(level: str) -> None:
    """One line an event, with its fields, to standard error. aiokafka would write a hundred a second while Kafka is away."""
    logging.basicConfig(level=level)
    throttle_loggers("aiokafka")
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
