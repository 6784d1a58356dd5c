"""The snapshot worker's Faust app: the same batches as the projector's, folded into states of aggregates behind it."""

from collections.abc import Mapping
from typing import Any, Final

from spanfold.application.aggregates import aggregate_of, installed_aggregates
from spanfold.language.errors import Misconfigured
from spanfold.language.settings import Settings
from spanfold.language.snapshot_policy import changed
from spanfold.language.topics import TopicOnBroker
from spanfold.projections.states import Folding, PreparedStates, StateStore
from spanfold.stream_processors.worker.app import Folder, folding_app
from spanfold.stream_processors.worker.committer import Committer
from spanfold.stream_processors.worker.metrics import Metrics

NAME: Final = "snapshots"
"""Of the consumer group, behind the installation's own name."""

BATCH_RECORDS: Final = 5_000
"""Of one transaction at most: memory holds a few batches and the states that they touch, however many there are."""


def foldings(settings: Settings) -> list[Folding]:
    """How each installed aggregate is folded. Misconfigured when the settings have a policy for one that is not installed, or two
    aggregates share a topic: then a key would not say whose state it is.
    """
    installed = installed_aggregates()
    if unknown := settings.snapshot_policies.keys() - installed.keys():
        raise Misconfigured(
            f"SPANFOLD_SNAPSHOT_POLICIES names {', '.join(sorted(unknown))}: there are {', '.join(sorted(installed))}"
        )
    for aggregate in installed.values():
        aggregate_of(aggregate.topic)
    default, changes = settings.snapshot_policy, settings.snapshot_policies
    return [Folding(aggregate, changed(default, changes.get(name, {}))) for name, aggregate in installed.items()]


def snapshots_app(
    settings: Settings,
    store: StateStore,
    committer: Committer[PreparedStates],
    topics: Mapping[str, TopicOnBroker],
    metrics: Metrics,
) -> Any:
    """The Faust app; `faust.Worker(app)` runs it."""
    folder = Folder(store, committer, topics, metrics)
    modest = settings.model_copy(update={"batch_records": min(settings.batch_records, BATCH_RECORDS)})
    return folding_app(modest, NAME, committer, store, folder, topics, judges=False)
