"""What a projection is, and the ones that are installed.

A projection is a bundle of tables that are folded together from events alone. It registers through the entry point group
`spanfold.projections`; ours come in by the same door.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.metadata import entry_points
from typing import Any, Final, Protocol, runtime_checkable

from psycopg import Cursor
from sqlalchemy import MetaData

from spanfold.application.aggregates import AggregateState, installed_aggregates
from spanfold.language.entry_points import load
from spanfold.language.topics import Topic
from spanfold.projections.facts import Fact

NEEDED_BY_FOLD: Final = {"needed_by_fold": True}
"""`info` of an index that the fold itself uses: a rebuild creates the other ones after loading."""


@dataclass(frozen=True, slots=True)
class View:
    """A public view in schema `spanfold`. `select` reads the tables of `{schema}`; `comments` explains each column."""

    name: str
    select: str
    comment: str
    comments: Mapping[str, str] = field(default_factory=dict)


class Projection(Protocol):
    """A fold, its tables and its views.

    `fold` is pure and deterministic: no clock, no database. What it returns (a partial) stands for its facts in any order
    and any cut: `combine(fold(a), fold(b)) == fold(a + b)`, and combine is commutative with `fold(())` as its zero.
    `merge` writes a partial into the generation's tables, set-based, once in the caller's transaction. Raise `fold_version`
    when the same events would fold into other rows.

    A table without a primary key names the columns that tell its rows apart: `info={"key": (…)}`.
    """

    name: str
    fold_version: int
    topics: Sequence[Topic]
    metadata: MetaData
    views: Sequence[View]

    def fold(self, facts: Sequence[Fact]) -> Any: ...

    def combine(self, one: Any, other: Any) -> Any: ...

    def merge(self, cursor: Cursor[Any], schema: str, partial: Any, partition: int) -> None: ...


@runtime_checkable
class ErasesTraces(Protocol):
    """A projection that says how traces are erased from its tables. One that folds an erasable topic and does not say keeps
    what it has folded of an erased trace until it is rebuilt; a rebuild leaves the trace out.
    """

    def erase(self, cursor: Cursor[Any], schema: str, aggregate_ids: Sequence[str], partition: int) -> None:
        """Leave the generation's tables as if the partition's events of these traces had never come: rows go, what was added
        to others is taken off again. Once or several times, in the caller's transaction.
        """


@runtime_checkable
class FoldsStates(Protocol):
    """A projection whose rows are a function of the states of its topics' aggregates, so that it can be rebuilt from snapshots
    and the log's tail. One that does not say how can't.
    """

    def from_states(self, states: Sequence[AggregateState]) -> Any:
        """The partial that these aggregates' events fold into."""


def why_not_from_states(projection: Projection) -> str | None:
    """Why the projection can't be rebuilt from snapshots; None if it can."""
    if not isinstance(projection, FoldsStates):
        return "its rows are no function of the states of aggregates"
    known = {aggregate.topic for aggregate in installed_aggregates().values()}
    without = [topic.name for topic in projection.topics if topic not in known]
    return f"{', '.join(without)} has no aggregate" if without else None


@lru_cache(maxsize=1)
def installed() -> Mapping[str, Projection]:
    """Every registered projection by name."""
    projections = [load(entry) for entry in entry_points(group="spanfold.projections")]
    return {projection.name: projection for projection in projections}


def folding(topic: Topic, projections: Mapping[str, Projection]) -> list[Projection]:
    """Those that fold this topic, in a fixed order."""
    return [projections[name] for name in sorted(projections) if topic in projections[name].topics]
