"""Old rows of the read models: deleted in every generation that is folded, up to where no event can change them any more."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from spanfold.language.positions import Position
from spanfold.language.times import as_datetime, as_us
from spanfold.language.topics import US_PER_DAY
from spanfold.projections.commit.journal import CORE
from spanfold.projections.projection import Projection
from spanfold.projections.retention.retention_horizons import horizons_of, raise_horizon, rows_below, trim
from spanfold.projections.retention.rules import TableRetention, late_days, retained_of, table_retentions
from spanfold.stream_processors.prune.parts import Bound, Part, day_floor, least, words_of
from spanfold.stream_processors.prune.retention_context import Site

Tell = Callable[[str, int, int, int], None]
"""Hears of a table how many rows of it are deleted, and how many of how many pages are looked through."""

KEPT: Final = ("live", "following")


@dataclass(frozen=True, slots=True)
class Trimming:
    """The rows of a table before `horizon` go. None where there is no horizon."""

    projection: Projection
    table: str
    horizon: datetime | None


def plan(site: Site) -> list[tuple[Part, Trimming]]:
    """A part for each table of which old rows may ever be let go of."""
    said = table_retentions(site.settings.table_retention_days, site.projections)
    chosen = {(each.projection.name, each.table.name): each for each in said}
    return [
        _unset(projection, table.name) if found is None else _plan(site, found)
        for projection in site.projections.values()
        for table in projection.metadata.sorted_tables
        if (found := chosen.get((projection.name, table.name))) or retained_of(table) is not None
    ]


def _unset(projection: Projection, table: str) -> tuple[Part, Trimming]:
    return Part("table", table, None, 0, None, "no retention set"), Trimming(projection, table, None)


def _plan(site: Site, asked: TableRetention) -> tuple[Part, Trimming]:
    projection, name = asked.projection, asked.table.name
    if (who := site.busy.get(projection.name)) is not None:
        return Part("table", name, None, 0, None, who), Trimming(projection, name, None)
    bound = least(_bounds(site, asked))
    before = horizons_of(site.control, projection.name).get(name)
    at = max(day_floor(bound.at), as_us(before) if before else _NEVER)
    horizon = None if at < _FIRST else as_datetime(at)
    if horizon is None:
        return Part("table", name, None, 0, None, bound.words), Trimming(projection, name, None)
    schemas = _schemas(site, projection)
    rows = sum(rows_below(site.control, schema, asked.table, asked.retained, horizon) for schema in schemas)
    words = f"{' and '.join(asked.retained.by)} {words_of(at)}"
    return Part("table", name, None, rows, words, bound.words), Trimming(projection, name, horizon)


def _bounds(site: Site, asked: TableRetention) -> Iterator[Bound]:
    projection, days = asked.projection, asked.days
    if site.now is None:
        yield Bound(_NEVER, "nothing has been judged yet")
        return
    since = site.now - days * US_PER_DAY
    yield Bound(since, f"{days} days before the last record, {words_of(since)}")
    reach = asked.retained.looked_up_days
    kept = [each for each in site.holders if each.owner == projection.name and each.state in KEPT]
    late = max(map(late_days, projection.topics)) + reach
    if (slowest := site.slowest(kept)) is not None:
        calls = f", and looks for spans that ended up to {reach} days before" if reach else ""
        words = f"an event may come {late - reach} days late, margin included{calls}; {slowest.words}"
        yield Bound(slowest.at - late * US_PER_DAY, words)
    for topic, partition, offset, occurred_at in _parked(site, projection):
        yield Bound(
            occurred_at - reach * US_PER_DAY,
            f"the parked record {Position(topic, partition, offset)} happened {words_of(occurred_at)}: retry it or discard it",
        )


def _parked(site: Site, projection: Projection) -> Sequence[tuple[str, int, int, int]]:
    """The record of these topics that may still be folded and happened first; none or one."""
    names = [topic.name for topic in projection.topics]
    return site.control.execute(OLDEST_PARKED, (names,)).fetchall()


def _schemas(site: Site, projection: Projection) -> list[str]:
    """Where the generations of the projection are that are folded."""
    return [schema for (schema,) in site.control.execute(SCHEMAS, (projection.name, list(KEPT)))]


def let_go(site: Site, trimming: Trimming, tell: Tell) -> None:
    """Store the horizon, then delete the rows before it."""
    projection, horizon = trimming.projection, trimming.horizon
    if horizon is None:
        return
    raise_horizon(site.control, projection.name, trimming.table, horizon)
    for schema in _schemas(site, projection):
        trim(site.control, schema, projection.metadata, {trimming.table: horizon}, tell)


def remarks(site: Site) -> Iterator[str]:
    """Which generations keep their old rows."""
    said = {each.projection.name for each in table_retentions(site.settings.table_retention_days, site.projections)}
    for name, number in site.control.execute(PREVIOUS).fetchall():
        if name in said:
            yield (
                f"generation {name}/{number} (previous) keeps its old rows, for `spanfold rollback {name}`: "
                f"`spanfold projections drop-previous {name}` lets go of it"
            )


_NEVER: Final = -(1 << 62)
_FIRST: Final = -62_135_596_800_000_000
"""The year 1, before which Python has no times."""

OLDEST_PARKED: Final = f"""
SELECT topic, partition, kafka_offset, (extract(epoch FROM occurred_at) * 1000000)::bigint
  FROM {CORE}.parked
 WHERE topic = ANY (%s) AND settled_offset IS NULL
 ORDER BY occurred_at
 LIMIT 1
"""

SCHEMAS: Final = f"""
SELECT schema_name FROM {CORE}.generations WHERE projection = %s AND state = ANY (%s) ORDER BY generation
"""

PREVIOUS: Final = f"SELECT projection, generation FROM {CORE}.generations WHERE state = 'previous' ORDER BY 1, 2"
"""Previous generations are complete only up to their own checkpoints: what is to come would find rows missing."""
