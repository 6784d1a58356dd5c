"""Snapshots of every aggregate, without waiting for the policy."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import psycopg

from spanfold.application.aggregates import installed_aggregates
from spanfold.language.errors import InvalidInput, Misconfigured
from spanfold.language.progress import NO_PROGRESS, ProgressListener
from spanfold.operations.installation import Installation
from spanfold.operations.postgres_errors import reads_translated
from spanfold.postgres.connections import connect
from spanfold.projections.states import Folding, StateStore


@dataclass(frozen=True, slots=True)
class SnapshotCount:
    """Of one aggregate: snapshots that were `taken` now, all that there are, and by how many judged records the snapshot worker
    is `behind`.
    """

    type: str
    taken: int
    snapshots: int
    behind: int


def take_snapshots(
    installation: Installation, types: Sequence[str] = (), progress: ProgressListener = NO_PROGRESS
) -> Sequence[SnapshotCount]:
    """Take a snapshot of every aggregate of these types (all without one) that has records in none; of what the snapshot worker
    has folded. InvalidInput for an unknown type, Misconfigured when nothing has folded one yet, StoreUnavailable.
    """
    names = _known(types)
    policy = installation.settings.snapshot_policy
    store = StateStore(Folding(installed_aggregates()[name], policy) for name in names)
    with (
        reads_translated(),
        connect(installation.dsn, "spanfold snapshot") as connection,
    ):
        taken = _take(connection, store, progress)
        return [_counted(connection, name, taken) for name in names]


def _known(types: Sequence[str]) -> Sequence[str]:
    installed = installed_aggregates()
    for name in types:
        if name not in installed:
            raise InvalidInput(f"--type: unknown aggregate {name}; expected one of {', '.join(sorted(installed))}")
    return types or sorted(installed)


def _take(connection: psycopg.Connection[Any], store: StateStore, progress: ProgressListener) -> dict[str, int]:
    """How many were taken, by topic."""
    places = sorted(store.start_offsets(connection.execute(store.checkpoints.encode()).fetchall()))
    taken = dict.fromkeys((topic.name for topic in store.topics), 0)
    for done, (topic, partition) in enumerate(places):
        progress.advanced(done, len(places), "partitions")
        taken[topic] += store.take_due(connection, topic, partition, everything=True)
    progress.advanced(len(places), len(places), "partitions")
    return taken


def _counted(connection: psycopg.Connection[Any], name: str, taken: Mapping[str, int]) -> SnapshotCount:
    aggregate = installed_aggregates()[name]
    row = connection.execute(COUNTED, (aggregate.topic.name, aggregate.fold_version)).fetchone()
    count, behind = row or (0, None)
    if behind is None:
        raise Misconfigured(
            f"no snapshot worker has folded {name} yet: start `spanfold worker snapshots`, or `spanfold up`"
        )
    return SnapshotCount(name, taken[aggregate.topic.name], count, behind)


COUNTED: Final = """
SELECT (SELECT count(*) FROM spanfold.snapshots s WHERE (s.topic, s.fold_version) = (a.topic, a.fold_version)),
       (SELECT sum(j.next_offset - c.next_offset)::bigint
          FROM spanfold.checkpoints c
          JOIN spanfold.checkpoints j ON (j.topic, j.partition, j.projection) = (c.topic, c.partition, 'journal')
         WHERE (c.topic, c.projection, c.generation) = (a.topic, 'snapshots', a.fold_version))
  FROM (VALUES (%s::text, %s::integer)) AS a (topic, fold_version)
"""
