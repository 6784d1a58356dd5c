"""Deleting what the retention settings no longer keep and nothing needs."""

from collections.abc import Sequence
from dataclasses import dataclass

from spanfold.language.progress import NO_PROGRESS, ProgressListener
from spanfold.operations.installation import Installation
from spanfold.operations.postgres_errors import writes_translated
from spanfold.operations.retention import begins_by_size, with_default_retention
from spanfold.projections.projection import installed
from spanfold.stream_processors.prune import Part, prune_plan


@dataclass(frozen=True, slots=True)
class PruneReport:
    """The parts of log, journals and tables: what went of each (with `dry_run` what would go), and why not more; `remarks` say
    what can't be done any more afterwards.
    """

    dry_run: bool
    parts: Sequence[Part]
    remarks: Sequence[str]


def prune(installation: Installation, dry_run: bool = False, progress: ProgressListener = NO_PROGRESS) -> PruneReport:
    """Delete old records of Kafka, days of journals and rows of tables, by SPANFOLD_LOG_RETENTION_DAYS,
    SPANFOLD_LOG_RETENTION_BYTES, SPANFOLD_JOURNAL_RETENTION_DAYS and SPANFOLD_TABLE_RETENTION_DAYS; the servers of a stack have
    defaults (spanfold/operations/retention.py). What a checkpoint, a snapshot or a late event may still
    need is kept. One that was ended is resumed when it is called again.

    Misconfigured when a setting names what does not exist or another pruning runs, LogUnavailable, StoreUnavailable.
    """
    settings = with_default_retention(installation.settings, installation.stack)
    topics = installation.prepare(lambda _: None)
    begins = begins_by_size(settings, installation.stack, topics)
    with (
        writes_translated("Run it again to resume"),
        prune_plan(settings, installation.dsn, topics, installed(), begins) as plan,
    ):
        if not dry_run:
            plan.run(progress)
    return PruneReport(dry_run, plan.parts, plan.remarks)
