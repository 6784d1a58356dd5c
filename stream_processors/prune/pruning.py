"""One pruning: alone, planned as a whole, carried out part by part."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final

from spanfold.application.aggregates import installed_aggregates
from spanfold.kafka.log_ends import Bounds
from spanfold.language.errors import Misconfigured
from spanfold.language.progress import NullProgress, ProgressListener
from spanfold.language.settings import Settings
from spanfold.language.topics import Partition, TopicOnBroker
from spanfold.projections.commit.parked_bytes import first_in_log
from spanfold.projections.projection import Projection
from spanfold.projections.retention.log_readers import log_readers
from spanfold.stream_processors.prune import journals, log, tables
from spanfold.stream_processors.prune.parts import Part
from spanfold.stream_processors.prune.retention_context import RetentionContext
from spanfold.stream_processors.rebuild.log_reader import LogReader
from spanfold.stream_processors.rebuild.rebuild_context import rebuild_context, session_lock

LOCK: Final = "spanfold prune"


@dataclass(frozen=True, slots=True)
class Step:
    """A part with what is to be done about it."""

    part: Part
    do: Callable[[ProgressListener], None]


@dataclass(frozen=True, slots=True)
class PrunePlan:
    """What can be deleted, and what can't be done any more afterwards."""

    steps: Sequence[Step]
    remarks: Sequence[str]

    @property
    def parts(self) -> list[Part]:
        """All parts, also those of which nothing can be deleted."""
        return [step.part for step in self.steps]

    def run(self, progress: ProgressListener) -> None:
        """Delete it."""
        for step in self.steps:
            if step.part.frees:
                progress.step(f"{step.part}: deleting everything before {step.part.before}")
                step.do(progress)


@contextmanager
def prune_plan(
    settings: Settings,
    dsn: str,
    topics: Mapping[str, TopicOnBroker],
    projections: Mapping[str, Projection],
    begins_by_size: Mapping[Partition, int],
) -> Iterator[PrunePlan]:
    """Plan; nothing is changed but by `run`. Until the block ends nobody else prunes, rebuilds, verifies or rolls back.

    `begins_by_size`: see RetentionContext. Misconfigured when the settings name what there is not, or another process prunes;
    LogUnavailable when Kafka is away.
    """
    with ExitStack() as locks, LogReader(settings) as reader:
        control = locks.enter_context(session_lock(dsn, LOCK, _busy))
        busy = {}
        for projection in projections.values():
            try:
                locks.enter_context(rebuild_context(settings, dsn, topics, projection, NullProgress()))
            except Misconfigured as error:
                busy[projection.name] = str(error)
        aggregates = [each for each in installed_aggregates().values() if each.topic.name in topics]
        earlier = log_readers(control, aggregates)
        watermarks = _watermarks(reader, topics)
        readers = log_readers(control, aggregates)
        # what is parked after this lies beyond the journal's checkpoint, which is among the readers
        parked = first_in_log(control)
        yield _plan(
            RetentionContext(
                settings,
                control,
                topics,
                projections,
                busy,
                reader,
                earlier,
                watermarks,
                readers,
                begins_by_size,
                parked,
            )
        )


def _plan(context: RetentionContext) -> PrunePlan:
    """Tables first, the log last: what is read again needs the log."""
    rows, days, records = tables.plan(context), journals.plan(context), log.plan(context)
    steps = [
        *(Step(part, partial(_trim, context, doomed)) for part, doomed in rows),
        *(Step(part, partial(_drop, context, doomed)) for part, doomed in days),
        *(Step(part, partial(_delete, context, cut)) for part, cut in records),
    ]
    return PrunePlan(steps, [*log.remarks(context, records), *tables.remarks(context)])


def _trim(
    context: RetentionContext, rows: tables.Trimming | tables.Sweeping | None, progress: ProgressListener
) -> None:
    if rows is not None:
        tables.delete(context, rows, progress)


def _drop(context: RetentionContext, doomed: journals.DoomedDays, _: ProgressListener) -> None:
    journals.delete(context, doomed)


def _delete(context: RetentionContext, cut: log.Cut | None, _: ProgressListener) -> None:
    if cut is not None:
        log.delete(context.settings, cut)


def _watermarks(reader: LogReader, topics: Mapping[str, TopicOnBroker]) -> Mapping[Partition, Bounds]:
    return {
        (name, partition): reader.watermarks(topic.name, partition)
        for name, topic in topics.items()
        for partition in range(topic.partitions)
    }


def _busy(holder: str) -> str:
    return f"another `spanfold prune` is running, in the Postgres session of {holder}: wait for it, or end it first"
