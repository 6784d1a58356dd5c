"""Loads one generation: from the log, from states of aggregates, up to the positions that a step of a rebuild needs."""

from contextlib import ExitStack
from functools import partial
from typing import Any, Final, Self

import psycopg
from sqlalchemy import text

from spanfold.application.aggregates import aggregate_of
from spanfold.language.errors import Misconfigured
from spanfold.language.positions import NextOffsets
from spanfold.postgres.connections import connect
from spanfold.projections.generations import lifecycle
from spanfold.projections.generations.lifecycle import GenerationRow
from spanfold.projections.generations.shadow import Shadow
from spanfold.projections.projection import why_not_from_states
from spanfold.projections.retention.retention_horizons import horizons_of, trim
from spanfold.projections.states.reading import states_of
from spanfold.projections.states.rows import FoldedPartition
from spanfold.stream_processors.rebuild.load_processes import Target, fold, fold_in_processes
from spanfold.stream_processors.rebuild.log_reader import LogReader, OffsetRange
from spanfold.stream_processors.rebuild.rebuild_context import RebuildContext

FEW: Final = 50_000
"""So many records are loaded in this process: starting others takes longer."""

FEW_LEFT: Final = 10_000
"""Records that may be left for the transaction of a hand-over, in which commits wait."""

SILENCE_IN_LOCKS_S: Final = 1.0
"""Kafka must not be silent for longer while commits wait."""


class GenerationLoader:
    """Folds the log into one generation, from where it stands; a context manager. `processes` load beside this one, 0: none."""

    def __init__(self, context: RebuildContext, generation: GenerationRow, processes: int) -> None:
        self._context, self._generation, self._processes = context, generation, processes
        self._shadow = Shadow(
            context.projection, generation.number, generation.schema, context.settings.merge_timeout_s
        )

    def __enter__(self) -> Self:
        with ExitStack() as opened:
            self._connection = opened.enter_context(connect(self._context.dsn, "spanfold load"))
            self._reader = opened.enter_context(LogReader(self._context.settings))
            self._resources = opened.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._resources.close()

    def next_offsets(self) -> NextOffsets:
        """Where the generation stands."""
        return self._context.next_offsets(self._generation)

    def load_states(self) -> int:
        """Begin each partition that has nothing yet with the states of its aggregates; returns how many there were."""
        empty = [partition for partition, offset in sorted(self.next_offsets().items()) if offset == 0]
        return sum(self._load_states_of(topic, partition) for topic, partition in empty)

    def _load_states_of(self, topic: str, partition: int) -> int:
        self._context.progress.step(f"loading states of {topic}/{partition}")
        aggregate = aggregate_of(self._context.topics[topic].topic)
        folded = FoldedPartition(aggregate.topic, partition, aggregate.fold_version)
        with (
            connect(self._context.dsn, "spanfold load states") as reading,
            states_of(reading, aggregate, folded) as standing,
        ):
            return self._shadow.commit_states(self._connection, folded, standing)

    def load(self, until: NextOffsets) -> int:
        """Fold the log up to these offsets; returns how many offsets that took."""
        ranges = self._ranges(until)
        total = sum(map(len, ranges))
        if total <= FEW or self._processes < 1:
            fold(self._reader, self._connection, self._shadow, ranges)
        else:
            show = partial(self._show_progress, self.next_offsets(), total)
            fold_in_processes(self._context.settings, self._target(), ranges, self._processes, show)
        self._context.progress.advanced(total, total, "records")
        return total

    def _target(self) -> Target:
        context, generation = self._context, self._generation
        timeout_s = context.settings.merge_timeout_s
        return Target(context.projection.name, generation.number, generation.schema, context.dsn, timeout_s)

    def _show_progress(self, began_at: NextOffsets, total: int) -> None:
        self._context.progress.advanced(_distance(began_at, self.next_offsets()), total, "records")

    def catch_up(self) -> None:
        """Fold until at most FEW_LEFT judged records are left."""
        while _distance(self.next_offsets(), judged := self._context.judged()) > FEW_LEFT:
            self.load(judged)

    def fold_rest(self, connection: psycopg.Connection[Any], until: NextOffsets) -> None:
        """Fold up to these offsets inside the transaction of `connection`, for which others wait: LogUnavailable soon."""
        for batch in self._reader.batches(self._ranges(until), SILENCE_IN_LOCKS_S):
            self._shadow.commit(connection, self._shadow.prepare(batch))
            # temporary tables are emptied by a commit, and there will be one for all batches
            connection.execute("DISCARD TEMP")

    def _ranges(self, until: NextOffsets) -> list[OffsetRange]:
        topics = self._context.topics
        return [
            OffsetRange(topics[topic], partition, offset, until[topic, partition])
            for (topic, partition), offset in self.next_offsets().items()
            if offset < until[topic, partition]
        ]

    def refuse_gaps(self, until: NextOffsets) -> None:
        """Misconfigured when the log lacks a record between where the generation stands and these offsets."""
        refuse_gaps(self._context, self._reader, self.next_offsets(), until)

    def trim(self) -> None:
        """Delete the rows before the retention horizons of the projection's tables: what has been pruned does not come back."""
        projection = self._context.projection
        horizons = horizons_of(self._connection, projection.name)
        trim(self._connection, self._generation.schema, projection.metadata, horizons)

    def create_indexes(self) -> None:
        """Create the indexes that the fold did without, and have the planner's statistics collected."""
        projection = self._context.projection
        with self._context.engine.begin() as connection:
            lifecycle.create_indexes(connection, projection, self._generation, [False])
            for table in projection.metadata.sorted_tables:
                connection.execute(text(f'ANALYZE "{self._generation.schema}"."{table.name}"'))


def refuse_gaps(context: RebuildContext, reader: LogReader, start: NextOffsets, until: NextOffsets) -> None:
    """Misconfigured when the log does not hold every record between these offsets."""
    for (name, partition), begin in start.items():
        topic, end = context.topics[name], until[name, partition]
        first, last = reader.watermarks(topic.name, partition)
        if begin < end and (first > begin or last < end):
            raise Misconfigured(
                f"the log of {topic.name}/{partition} holds offsets {first} to {last}, but loading "
                f"{context.projection.name} needs {begin} to {end}: what is gone from the log can't be folded again."
                f"{_way_out(context)} Nothing was "
                "changed."
            )


def _way_out(context: RebuildContext) -> str:
    if why_not_from_states(context.projection) is not None:
        return ""
    return f" `spanfold rebuild {context.projection.name} --from-snapshot` starts from what the snapshot worker keeps."


def _distance(start: NextOffsets, end: NextOffsets) -> int:
    return sum(max(0, end[partition] - offset) for partition, offset in start.items())
