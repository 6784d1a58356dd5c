"""The projector: the worker that judges records and folds them into the read models."""

from collections.abc import Mapping
from typing import Any

from projections.preparing import Prepared
from projections.store import Store
from spanfold.settings import Settings
from spanfold.topics import TopicOnBroker
from stream_processors.committer import Committer
from stream_processors.folding import Folder, folding_app
from stream_processors.metrics import Metrics
from stream_processors.parked_share import ParkedShare

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
    folder = Folder(store, committer, topics, metrics, ParkedShare(settings.parked_share_limit))
    return folding_app(settings, NAME, committer, store, folder, topics)
