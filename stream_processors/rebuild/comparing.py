"""Live and rebuilt rows at one exact position: part of a rebuild, all of `verify`."""

from collections.abc import Sequence
from typing import Final

import psycopg

from spanfold.language.errors import Misconfigured
from spanfold.projections.commit.erasure import erasures_on
from spanfold.projections.generations.lifecycle import GenerationRow
from spanfold.projections.generations.parity import Side, TableParity, checksums, compare, shapes_of
from spanfold.projections.generations.shadow import Positions, positions_of
from spanfold.projections.retention.retention_horizons import horizons_of
from spanfold.stream_processors.rebuild.loading import Loading, Workplace

NAMED: Final = 20
"""So many differing rows of each table are named."""

TIMES: Final = 5
"""So often it is compared at most, where traces are erased all the time."""


class RowsDiffer(Misconfigured):
    """What was rebuilt is not what is live, though the same fold made both."""

    exit_code = 1

    def __init__(self, message: str, parity: Sequence[TableParity]) -> None:
        super().__init__(message)
        self.parity = parity


def parity_of(place: Workplace, loading: Loading, live: GenerationRow, rebuilt: GenerationRow) -> list[TableParity]:
    """Live as one snapshot shows it; the rebuilt one, brought to exactly the same positions. Again, if they differ and a trace
    was erased meanwhile: the rebuilt one leaves it out before its erasure, where the snapshot still shows it.
    """
    topics = [topic.name for topic in place.projection.topics]
    for _ in range(TIMES):
        before = erasures_on(place.control, topics)
        place.audience.step("comparing")
        found = _compared(place, loading, live, rebuilt)
        if all(each.equal for each in found) or erasures_on(place.control, topics) == before:
            break
    return found


def _compared(place: Workplace, loading: Loading, live: GenerationRow, rebuilt: GenerationRow) -> list[TableParity]:
    with psycopg.connect(place.dsn, application_name="spanfold compare") as frozen, psycopg.connect(place.dsn) as other:
        frozen.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        until = positions_of(frozen, place.projection.name, live.number)
        ahead = {at: end for at, end in loading.positions().items() if end > until.get(at, end)}
        if ahead and live.fold_version != place.projection.fold_version:
            place.audience.step("not compared: nobody folds the live generation any more")
            return []
        if ahead:
            raise Misconfigured(
                f"the live generation of {place.projection.name} stands before the rebuilt one in {_words(ahead)}: is a worker "
                "folding it? `spanfold status` tells"
            )
        side = Side(frozen, live.schema)
        # from this snapshot: a row that it lacks lay before a horizon that it has
        horizons = horizons_of(frozen, place.projection.name)
        shapes = shapes_of(side, place.projection.metadata, horizons)
        sums = [checksums(side, shape) for shape in shapes]
        loading.load({at: until.get(at, end) for at, end in loading.positions().items()})
        found = Side(other, rebuilt.schema)
        return [compare(side, known, found, shape, NAMED) for shape, known in zip(shapes, sums, strict=True)]


def _words(positions: Positions) -> str:
    return ", ".join(f"{topic}[{partition}]" for topic, partition in positions)


def refuse_differences(place: Workplace, live: GenerationRow, parity: Sequence[TableParity]) -> None:
    """RowsDiffer when the same fold made other rows."""
    unequal = [each.table for each in parity if not each.equal]
    if not unequal or live.fold_version != place.projection.fold_version:
        return
    raise RowsDiffer(
        f"the rebuilt rows of {', '.join(unequal)} are not the live ones, though the fold says that it is the same (version "
        f"{live.fold_version}). Nothing was swapped; --accept-differences swaps nevertheless, --abort drops what was loaded",
        parity,
    )
