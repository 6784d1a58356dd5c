"""Runs a worker as a process: prepares topics and tables, then folds until it is told to stop."""

import gc
import logging

import faust
import structlog

from producers.topics import ensure_topics
from projections import generations
from projections.projection import installed
from projections.store import Store
from spanfold.errors import Misconfigured
from spanfold.settings import Settings
from stream_processors.committer import Committer
from stream_processors.projector import projector_app


def run_projector(settings: Settings) -> None:
    """Fold until SIGTERM or SIGINT. Ends the process: exit code 0 when it was told to stop, 1 on an error."""
    dsn = postgres_dsn(settings)
    topics = ensure_topics(settings)
    generations.prepare(dsn, topics.values(), installed())
    store = Store(installed())
    committer = Committer(dsn, store)
    app = projector_app(settings, store, committer, topics)
    configure_logging(settings.log_level)
    _spare_the_collector()
    faust.Worker(app, loglevel=settings.log_level, quiet=True, redirect_stdouts=False).execute_from_commandline()


def _spare_the_collector() -> None:
    """Batches are trees of dictionaries that reference counting frees; looking for cycles in them took a third of the
    projector's time. What lives from here on is young, and is looked at once in so many allocations.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(200_000, 10, 10)


def postgres_dsn(settings: Settings) -> str:
    """The DSN of the settings; Misconfigured when there is none."""
    if settings.postgres_dsn is None:
        raise Misconfigured("no Postgres is named: set SPANFOLD_POSTGRES_DSN, or run `spanfold up`")
    return settings.postgres_dsn


def configure_logging(level: str) -> None:
    """One line an event, with its fields, to standard error."""
    logging.basicConfig(level=level)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level]))
