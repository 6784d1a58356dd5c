"""Live and rebuilt rows at one exact position: part of a rebuild, all of a verification."""

from collections.abc import Sequence
from typing import Any, Final

import psycopg

from spanfold.language.errors import Misconfigured
from spanfold.language.positions import NextOffsets
from spanfold.postgres.connections import connect
from spanfold.postgres.sessions import PATIENT
from spanfold.projections.commit.erasure import erasures_on
from spanfold.projections.generations.lifecycle import GenerationRow
from spanfold.projections.generations.parity import Side, TableParity, checksums, compare, shapes_of
from spanfold.projections.generations.shadow import next_offsets_of
from spanfold.projections.retention.retention_horizons import horizons_of
from spanfold.stream_processors.rebuild.generation_loader import GenerationLoader
from spanfold.stream_processors.rebuild.rebuild_context import RebuildContext

NAMED: Final = 20
"""So many differing rows of each table are named."""

ATTEMPTS: Final = 5
"""So often it is compared at most, where traces are erased all the time."""

Connection = psycopg.Connection[Any]


class RowsDiffer(Misconfigured):
    """What was rebuilt is not what is live, though the same fold made both; `parity` says where."""

    exit_code = 1

    def __init__(self, message: str, parity: Sequence[TableParity]) -> None:
        super().__init__(message)
        self.parity = parity


def compare_with_live(
    context: RebuildContext, loader: GenerationLoader, live: GenerationRow, rebuilt: GenerationRow
) -> Sequence[TableParity]:
    """Live as one snapshot shows it; the rebuilt one, brought to exactly the same positions. Again, if they differ and a trace
    was erased meanwhile: the rebuilt one leaves it out before its erasure, where the snapshot still shows it.
    """
    topics = [topic.name for topic in context.projection.topics]
    for _ in range(ATTEMPTS):
        erasures = erasures_on(context.control, topics)
        context.progress.step("comparing")
        parity = _compare_once(context, loader, live, rebuilt)
        if all(table.equal for table in parity) or erasures_on(context.control, topics) == erasures:
            break
    return parity


def _compare_once(
    context: RebuildContext, loader: GenerationLoader, live: GenerationRow, rebuilt: GenerationRow
) -> list[TableParity]:
    with (
        connect(context.dsn, "spanfold compare", PATIENT, autocommit=False) as frozen,
        connect(context.dsn, "spanfold compare", PATIENT, autocommit=False) as current,
    ):
        frozen.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        until = _comparable_offsets(context, frozen, loader, live)
        if until is None:
            context.progress.step("not compared: no worker folds the live generation any more")
            return []
        side = Side(frozen, live.schema)
        # from this snapshot: a row that it lacks lay before a horizon that it has
        shapes = shapes_of(side, context.projection.metadata, horizons_of(frozen, context.projection.name))
        sums = [checksums(side, shape) for shape in shapes]
        loader.load(until)
        other = Side(current, rebuilt.schema)
        return [compare(side, known, other, shape, NAMED) for shape, known in zip(shapes, sums, strict=True)]


def _comparable_offsets(
    context: RebuildContext, frozen: Connection, loader: GenerationLoader, live: GenerationRow
) -> NextOffsets | None:
    """Where the live generation stands, to which the rebuilt one is to be brought; None when the rebuilt one is beyond, and no
    worker folds the live one any more. Misconfigured when one should.
    """
    live_offsets = next_offsets_of(frozen, context.projection.name, live.number)
    rebuilt_offsets = loader.next_offsets()
    ahead = [at for at, offset in rebuilt_offsets.items() if offset > live_offsets.get(at, offset)]
    if not ahead:
        return {at: live_offsets.get(at, offset) for at, offset in rebuilt_offsets.items()}
    if live.fold_version != context.projection.fold_version:
        return None
    where = ", ".join(f"{topic}/{partition}" for topic, partition in ahead)
    raise Misconfigured(
        f"the live generation is behind the rebuilt one in {where}: is a worker folding it? See `spanfold status`"
    )


def refuse_differences(context: RebuildContext, live: GenerationRow, parity: Sequence[TableParity]) -> None:
    """RowsDiffer when the same fold made other rows."""
    unequal = [table.table for table in parity if not table.equal]
    if not unequal or live.fold_version != context.projection.fold_version:
        return
    raise RowsDiffer(
        f"the rebuilt rows of {', '.join(unequal)} differ from the live ones, although both were made by fold version "
        f"{live.fold_version}. Nothing was swapped; --accept-differences swaps anyway, --abort drops what was loaded",
        parity,
    )
