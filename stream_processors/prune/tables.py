"""Old rows of the read models: deleted in all generations that workers keep up, as far as no event can change them any more."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from spanfold.language.positions import Position
from spanfold.language.progress import ProgressListener
from spanfold.language.times import as_datetime, as_us
from spanfold.language.topics import US_PER_DAY
from spanfold.projections import resources
from spanfold.projections.commit.checkpoints import lock_checkpoint
from spanfold.projections.commit.journal import CORE
from spanfold.projections.generation_states import KEPT_UP, GenerationState, sql_list
from spanfold.projections.projection import Projection
from spanfold.projections.retention.retention_horizons import (
    horizons_of,
    raise_horizon,
    rows_below,
    trim,
)
from spanfold.projections.retention.rules import TableRetention, late_days, retained_of, table_retentions
from spanfold.stream_processors.prune.parts import (
    NO_RETENTION,
    NOTHING_JUDGED,
    Bound,
    Part,
    day_floor,
    least,
    time_text,
)
from spanfold.stream_processors.prune.retention_context import NEVER, RetentionContext

NOBODY_REFERS: Final = "no row refers to them"

FIRST: Final = -62_135_596_800_000_000
"""The year 1, before which Python has no times."""


@dataclass(frozen=True, slots=True)
class Trimming:
    """The rows of a table before `horizon` go."""

    projection: Projection
    table: str
    horizon: datetime


@dataclass(frozen=True, slots=True)
class Sweeping:
    """The projection's resources that no row refers to go."""

    projection: Projection


def plan(context: RetentionContext) -> list[tuple[Part, Trimming | Sweeping | None]]:
    """A part for each table of which rows may ever be deleted; with nothing to do where they are all kept."""
    return [*_plan_tables(context), *_plan_resources(context)]


def _plan_tables(context: RetentionContext) -> list[tuple[Part, Trimming | None]]:
    retentions = table_retentions(context.settings.table_retention_days, context.projections)
    by_table = {(each.projection.name, each.table.name): each for each in retentions}
    return [
        _plan_table(context, retention) if retention else (_kept_whole(table.name, NO_RETENTION), None)
        for projection in context.projections.values()
        for table in projection.metadata.sorted_tables
        if (retention := by_table.get((projection.name, table.name))) or retained_of(table) is not None
    ]


def _plan_resources(context: RetentionContext) -> Iterator[tuple[Part, Sweeping | None]]:
    """Resources whose rows went with a pruning, or were replaced."""
    for projection in context.projections.values():
        if resources.RESOURCES not in projection.metadata.tables:
            continue
        name = f"{projection.name}.{resources.RESOURCES}"
        if (who := context.busy.get(projection.name)) is not None:
            yield _kept_whole(name, who), None
            continue
        generations = _kept_up(context, projection)
        unused = sum(resources.count_unused(context.control, schema, projection.metadata) for _, schema in generations)
        yield Part("table", name, None, unused, NOBODY_REFERS, NOBODY_REFERS), Sweeping(projection)


def _kept_whole(table: str, why: str) -> Part:
    return Part("table", table, None, 0, None, why)


def _plan_table(context: RetentionContext, retention: TableRetention) -> tuple[Part, Trimming | None]:
    projection, table = retention.projection, retention.table
    if (who := context.busy.get(projection.name)) is not None:
        return _kept_whole(table.name, who), None
    bound = least(_bounds(context, retention))
    before = horizons_of(context.control, projection.name).get(table.name)
    at = max(day_floor(bound.at), as_us(before) if before else NEVER)
    if at < FIRST:
        return _kept_whole(table.name, bound.words), None
    horizon = as_datetime(at)
    schemas = _kept_up_schemas(context, projection)
    rows = sum(rows_below(context.control, schema, table, retention.retained, horizon) for schema in schemas)
    words = f"{' and '.join(retention.retained.by)} {time_text(at)}"
    return Part("table", table.name, None, rows, words, bound.words), Trimming(projection, table.name, horizon)


def _bounds(context: RetentionContext, retention: TableRetention) -> Iterator[Bound]:
    if context.now is None:
        yield Bound(NEVER, NOTHING_JUDGED)
        return
    since = context.now - retention.days * US_PER_DAY
    yield Bound(since, f"{retention.days} days before the last record, {time_text(since)}")
    yield from _late_bounds(context, retention)
    yield from _parked_bounds(context, retention)


def _late_bounds(context: RetentionContext, retention: TableRetention) -> Iterator[Bound]:
    """Rows that a late event may still change, or look up."""
    projection, reach = retention.projection, retention.retained.looked_up_days
    slowest = context.slowest(
        reader for reader in context.readers if reader.owner == projection.name and reader.state in KEPT_UP
    )
    if slowest is not None:
        late = max(map(late_days, projection.topics))
        lookup = f", and looks up rows that are up to {reach} days older" if reach else ""
        words = f"an event may come {late} days late, margin included{lookup}; {slowest.words}"
        yield Bound(slowest.at - (late + reach) * US_PER_DAY, words)


def _parked_bounds(context: RetentionContext, retention: TableRetention) -> Iterator[Bound]:
    """Rows that the oldest record that may still be retried would change, or look up."""
    names = [topic.name for topic in retention.projection.topics]
    for topic, partition, offset, occurred_at in context.control.execute(OLDEST_PARKED, (names,)).fetchall():
        position = Position(topic, partition, offset)
        words = f"the parked record {position} happened {time_text(occurred_at)}: retry it or discard it"
        yield Bound(occurred_at - retention.retained.looked_up_days * US_PER_DAY, words)


def _kept_up_schemas(context: RetentionContext, projection: Projection) -> Sequence[str]:
    return [schema for _, schema in _kept_up(context, projection)]


def _kept_up(context: RetentionContext, projection: Projection) -> Sequence[tuple[int, str]]:
    return context.control.execute(KEPT_UP_GENERATIONS, (projection.name,)).fetchall()


def delete(context: RetentionContext, what: Trimming | Sweeping, progress: ProgressListener) -> None:
    """Delete the rows."""
    if isinstance(what, Sweeping):
        _sweep(context, what.projection)
    else:
        _trim(context, what, progress)


def _sweep(context: RetentionContext, projection: Projection) -> None:
    """Partition by partition, while nobody commits to it: a commit may refer to any resource that it sees."""
    for generation, schema in _kept_up(context, projection):
        for topic in projection.topics:
            for partition in range(context.topics[topic.name].partitions):
                with context.control.transaction(), context.control.cursor() as cursor:
                    lock_checkpoint(cursor, topic.name, partition, projection.name, generation)
                    resources.sweep(cursor, schema, partition, projection.metadata)


def _trim(context: RetentionContext, trimming: Trimming, progress: ProgressListener) -> None:
    """Store the horizon, then delete the rows before it."""
    projection, horizon = trimming.projection, trimming.horizon
    raise_horizon(context.control, projection.name, trimming.table, horizon)
    for schema in _kept_up_schemas(context, projection):
        trim(context.control, schema, projection.metadata, {trimming.table: horizon}, progress)


def remarks(context: RetentionContext) -> Iterator[str]:
    """Which generations keep their old rows."""
    retentions = table_retentions(context.settings.table_retention_days, context.projections)
    pruned = {retention.projection.name for retention in retentions}
    for name, number in context.control.execute(PREVIOUS).fetchall():
        if name in pruned:
            yield (
                f"generation {name}/{number} (previous) keeps its old rows, for `spanfold rollback {name}`: "
                f"drop it with `spanfold projections drop-previous {name}`"
            )


OLDEST_PARKED: Final = f"""
SELECT topic, partition, kafka_offset, (extract(epoch FROM occurred_at) * 1000000)::bigint
  FROM {CORE}.parked
 WHERE topic = ANY (%s) AND settled_offset IS NULL
 ORDER BY occurred_at
 LIMIT 1
"""

KEPT_UP_GENERATIONS: Final = f"""
SELECT generation, schema_name FROM {CORE}.generations WHERE projection = %s AND state IN {sql_list(KEPT_UP)} ORDER BY generation
"""

PREVIOUS: Final = f"""
SELECT projection, generation FROM {CORE}.generations WHERE state = '{GenerationState.PREVIOUS}' ORDER BY 1, 2
"""
"""Previous generations are complete only up to their own checkpoints: what is to come would find rows missing."""
