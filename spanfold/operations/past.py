"""The tables as the log had them at a moment of the past, in a schema of their own."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from spanfold.language.errors import InvalidInput
from spanfold.language.json_values import time_us
from spanfold.language.positions import NextOffsets
from spanfold.language.progress import NO_PROGRESS, ProgressListener
from spanfold.operations.installation import Installation
from spanfold.operations.positions import position_of
from spanfold.operations.postgres_errors import writes_translated
from spanfold.operations.rebuilding import WORKERS, at_work, projections_named
from spanfold.projections.projection import Projection
from spanfold.stream_processors.rebuild import as_of_schemas as schemas
from spanfold.stream_processors.rebuild import rebuild as steps
from spanfold.stream_processors.rebuild.rebuild_context import RebuildContext

OffsetsOf = Callable[[RebuildContext], NextOffsets]


@dataclass(frozen=True, slots=True)
class PastReport:
    """What the schema shows: by projection how many records were folded, and how many traces were erased since then: those are
    left out. `view` is one that can be queried.
    """

    schema: str
    records: Mapping[str, int]
    erased: int
    view: str


@dataclass(frozen=True, slots=True)
class DroppedPast:
    """A schema that was dropped, and the projections that were in it."""

    schema: str
    dropped: Sequence[str]


def as_of(
    installation: Installation,
    into: str,
    moment: str | None = None,
    positions: Sequence[str] = (),
    projections: Sequence[str] = (),
    workers: int = WORKERS,
    progress: ProgressListener = NO_PROGRESS,
) -> PastReport:
    """Create the schema `into` with the tables of these projections (all without one) as they were before a moment: a time in RFC
    3339, by the broker's clock, or positions that name the first offset that is not folded of every partition. InvalidInput
    unless it is one of both.
    """
    offsets_of, chosen = _parsed(installation, moment, positions, projections)
    shown_moment = " ".join([*([moment] if moment else []), *positions, *projections])
    with writes_translated():
        schemas.create_schema(installation.dsn, into, shown_moment)
        records: dict[str, int] = {}
        erased: set[str] = set()
        try:
            for projection in chosen:
                with at_work(installation, projection.name, progress) as context:
                    until = offsets_of(context)
                    records[projection.name] = steps.as_of(context, into, until, workers)
                    erased |= schemas.erased_since(context, until)
        except BaseException:
            schemas.drop_schema(installation.dsn, into)
            raise
    return PastReport(into, records, len(erased), f"{into}.{chosen[-1].views[0].name}")


def drop_as_of(installation: Installation, schema: str) -> DroppedPast:
    """Drop a schema that as_of has made. InvalidInput for any other."""
    with writes_translated():
        return DroppedPast(schema, schemas.drop_schema(installation.dsn, schema))


def _parsed(
    installation: Installation, moment: str | None, positions: Sequence[str], projections: Sequence[str]
) -> tuple[OffsetsOf, list[Projection]]:
    """How to find the offsets, and the projections."""
    if bool(moment) == bool(positions):
        given = " ".join([*([moment] if moment else []), *positions])
        raise InvalidInput(
            "pass one time (2026-11-23T07:00:00Z) or positions (spanfold.traces/0@1234 for each partition)"
            + (f", not {given!r}" if given else "")
        )
    if moment:
        moment_us = time_us(moment, "the time")
        return lambda context: schemas.offsets_at(context, moment_us), projections_named(projections)
    parsed = [position_of(position, installation.settings.topic_prefix) for position in positions]
    offsets = {(position.topic, position.partition): position.offset for position in parsed}
    chosen = projections_named(projections) if projections else _folded_from({topic for topic, _ in offsets})
    return lambda context: schemas.offsets_for(context, offsets), chosen


def _folded_from(topics: set[str]) -> list[Projection]:
    """The projections that fold one of these topics."""
    folding = [
        projection
        for projection in projections_named(())
        if not topics.isdisjoint(topic.name for topic in projection.topics)
    ]
    if not folding:
        raise InvalidInput(f"no projection is folded from {', '.join(sorted(topics))}")
    return folding
