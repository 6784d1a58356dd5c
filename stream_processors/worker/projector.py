"""The projector: the worker that judges records and folds them into the read models."""

from collections.abc import Mapping
from typing import Any

from spanfold.language.settings import Settings
from spanfold.language.topics import TopicOnBroker
from spanfold.projections.commit.preparing import Prepared
from spanfold.projections.commit.store import Store
from spanfold.stream_processors.worker.app import Folder, folding_app
from spanfold.stream_processors.worker.committer import Committer
from spanfold.stream_processors.worker.metrics import Metrics

NAME = "projector"
"""Of the consumer group, behind the installation's own name."""


def projector_app(
    settings: Settings,
    store: Store,
    committer: Committer[Prepared],
    topics: Mapping[str, TopicOnBroker],
    metrics: Metrics,
) -> Any:
    """The Faust app; `faust.Worker(app)` runs it."""
    folder = Folder(store, committer, topics, metrics)
    return folding_app(settings, NAME, committer, store, folder, topics)
