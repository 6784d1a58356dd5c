"""Rebuild, verify and rollback of one projection; the steps are those of stream_processors/rebuild/rebuild.py."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from spanfold.language.errors import InvalidInput
from spanfold.language.progress import NO_PROGRESS, ProgressListener
from spanfold.operations.installation import Installation
from spanfold.operations.postgres_errors import writes_translated
from spanfold.projections.projection import Projection, installed
from spanfold.stream_processors.rebuild import rebuild as steps
from spanfold.stream_processors.rebuild.rebuild import RebuildPreview, RebuildReport
from spanfold.stream_processors.rebuild.rebuild_context import RebuildContext, rebuild_context

WORKERS: Final = 2
"""Processes that load, each whole partitions."""


@dataclass(frozen=True, slots=True)
class DroppedGenerations:
    """Generations of a projection that were dropped, by number."""

    projection: str
    generations: Sequence[int]


def rebuild(
    installation: Installation,
    projection: str,
    workers: int = WORKERS,
    from_snapshot: bool = False,
    accept_differences: bool = False,
    tablespace: str = "",
    follow_until_taken_over: bool = True,
    progress: ProgressListener = NO_PROGRESS,
) -> RebuildReport:
    """Fold the projection again from the log beside the live one, compare both, and swap it in while it is read. One that was
    ended is resumed when it is called again.

    `from_snapshot` begins with the states of aggregates; `accept_differences` swaps also if the same fold now makes other rows.
    With
    a new fold version it follows the log until workers of that version take over, unless the caller does it: see `follow`.
    InvalidInput
    for an unknown projection, RowsDiffer, Misconfigured when it is refused, LogUnavailable, StoreUnavailable: the live tables are
    then as they were.
    """
    with at_work(installation, projection, progress, tablespace) as context:
        report = steps.rebuild(context, workers, accept_differences=accept_differences, from_snapshot=from_snapshot)
        if report.needs_follower and follow_until_taken_over:
            steps.follow(context)
    return report


def follow(installation: Installation, projection: str, progress: ProgressListener = NO_PROGRESS) -> None:
    """Keep the live generation up to date until workers that carry its fold version take over."""
    with at_work(installation, projection, progress) as context:
        steps.follow(context)


def preview_rebuild(installation: Installation, projection: str, from_snapshot: bool = False) -> RebuildPreview:
    """What a rebuild would fold, or its refusal; changes nothing."""
    with at_work(installation, projection, NO_PROGRESS) as context:
        return steps.preview(context, from_snapshot=from_snapshot)


def abort_rebuild(installation: Installation, projection: str) -> DroppedGenerations:
    """Drop what a rebuild has left unfinished."""
    with at_work(installation, projection, NO_PROGRESS) as context:
        return DroppedGenerations(projection, [generation.number for generation in steps.abort(context)])


def verify(
    installation: Installation,
    projection: str,
    workers: int = WORKERS,
    from_snapshot: bool = False,
    progress: ProgressListener = NO_PROGRESS,
) -> RebuildReport:
    """Fold the projection again from the log and compare it with the live tables, row by row, at one exact position; what was
    loaded is dropped again. The report's `equal` is the answer, its `parity` has the first differences of each table.
    """
    with at_work(installation, projection, progress) as context:
        return steps.verify(context, workers, from_snapshot=from_snapshot)


def rollback(
    installation: Installation,
    projection: str,
    workers: int = WORKERS,
    follow_until_taken_over: bool = True,
    progress: ProgressListener = NO_PROGRESS,
) -> RebuildReport:
    """Make the generation before the last rebuild live again, once it has caught up with the log. Misconfigured when there is
    none, or this code does not carry its fold version.
    """
    with at_work(installation, projection, progress) as context:
        report = steps.rollback(context, workers)
        if report.needs_follower and follow_until_taken_over:
            steps.follow(context)
    return report


def drop_previous(installation: Installation, projection: str) -> DroppedGenerations:
    """Drop the generations that were live before the last rebuild; rollback is impossible afterwards."""
    with at_work(installation, projection, NO_PROGRESS) as context:
        return DroppedGenerations(projection, [generation.number for generation in steps.drop_previous(context)])


def projections_named(names: Sequence[str]) -> list[Projection]:
    """The installed projections of these names, all without a name. InvalidInput names the unknown ones and what there is."""
    known = installed()
    unknown = [name for name in names if name not in known]
    if unknown:
        raise InvalidInput(f"unknown projection {', '.join(unknown)}; expected one of {', '.join(sorted(known))}")
    return [known[name] for name in names or sorted(known)]


@contextmanager
def at_work(
    installation: Installation, projection: str, progress: ProgressListener, tablespace: str = ""
) -> Iterator[RebuildContext]:
    """Alone with the generations of this projection, on prepared topics and tables. Postgres' errors are translated."""
    (chosen,) = projections_named([projection])
    topics = installation.prepare(lambda _: None)  # what waits for a rebuild is what this is about
    with (
        writes_translated(),
        rebuild_context(installation.settings, installation.dsn, topics, chosen, progress, tablespace) as context,
    ):
        yield context
