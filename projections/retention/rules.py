"""What the settings say may be deleted, and whether it may be: records of topics, days of journals, old rows of tables.

A table's old rows may be deleted if they become final with time: each lies at a time that its events give it, and the log
accepts no event that is older than its topic's window. Tables whose rows live as long as what they are about (a trace, a
series, an instance) have no such time.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from psycopg import sql
from sqlalchemy import Table

from spanfold.language.errors import Misconfigured
from spanfold.language.topics import Topic, TopicKind
from spanfold.projections.projection import Projection

MARGIN_DAYS: Final = 1
"""Brokers' clocks differ, and may be set back: by less than this."""


@dataclass(frozen=True, slots=True)
class Retained:
    """How the rows of a table become final: by the time in the columns `by`, the greatest of those that are not null. It is in
    the table's `info` as "retained".

    `looked_up_days`: for an event the fold looks up rows that are at most so much older. `counted_from`: these rows count
    what rows of that table tell, at most so many days after them; where those are deleted, an erasure, or an event whose
    times are lies, finds nothing to count any more.
    """

    by: tuple[str, ...]
    looked_up_days: int = 0
    counted_from: tuple[str, int] | None = None

    @property
    def time(self) -> sql.Composable:
        """The time at which a row lies, in SQL."""
        return sql.SQL("greatest({})").format(sql.SQL(", ").join(map(sql.Identifier, self.by)))


@dataclass(frozen=True, slots=True)
class TableRetention:
    """The rows of `table` are to be kept for `days`."""

    projection: Projection
    table: Table
    retained: Retained
    days: int


def retained_of(table: Table) -> Retained | None:
    """How its rows become final, None if they don't."""
    retained = table.info.get("retained")
    return retained if isinstance(retained, Retained) else None


def late_days(topic: Topic) -> int:
    """No event that is older than this, by the time of the record that was judged last, will be accepted any more."""
    return topic.window_days + topic.future_days + MARGIN_DAYS


def log_retentions(days: Mapping[str, int], topics: Iterable[Topic]) -> dict[str, int]:
    """The days for which to keep each topic's records. Misconfigured names a topic that there is not."""
    _refuse_unknown("SPANFOLD_LOG_RETENTION_DAYS", "topic", days, {topic.name for topic in topics})
    return dict(days)


def journal_retentions(days: Mapping[str, int], topics: Iterable[Topic]) -> dict[str, int]:
    """The days for which to keep each topic's journal. Misconfigured for a topic that has none, or whose journal is truth."""
    kept = {topic.name for topic in topics if topic.kind is TopicKind.TELEMETRY and topic.journaled}
    conditional = {topic.name for topic in topics if topic.kind is TopicKind.CONDITIONAL}
    if wrong := sorted(conditional & days.keys()):
        raise Misconfigured(
            f"SPANFOLD_JOURNAL_RETENTION_DAYS names {', '.join(wrong)}: the journal of a conditional topic decides "
            "what is accepted, for ever, and is never deleted"
        )
    _refuse_unknown("SPANFOLD_JOURNAL_RETENTION_DAYS", "topic with a journal by day", days, kept)
    return dict(days)


def table_retentions(days: Mapping[str, int], projections: Mapping[str, Projection]) -> list[TableRetention]:
    """The tables of which old rows are to be deleted. A table is named `spans`, or `traces.spans` where two projections have
    one of that name. Misconfigured for a table that there is not, or whose rows have no time at which they become final.
    """
    named = dict(_tables(projections))
    may = {name for name, (_, table) in named.items() if retained_of(table) is not None}
    _refuse_unknown("SPANFOLD_TABLE_RETENTION_DAYS", "table", days, set(named), may)
    retentions = []
    for name, kept_days in sorted(days.items()):
        projection, table = named[name]
        retained = retained_of(table)
        if retained is None:
            raise Misconfigured(
                f"SPANFOLD_TABLE_RETENTION_DAYS names {name}: late events may still change any "
                f"of its rows. Rows become final with time in {', '.join(sorted(may))}"
            )
        if any(topic.kind is TopicKind.CONDITIONAL for topic in projection.topics):
            raise Misconfigured(
                f"SPANFOLD_TABLE_RETENTION_DAYS names {name}, which is folded from a conditional topic: that accepts events of "
                "any age, so no row of it is ever final"
            )
        retentions.append(TableRetention(projection, table, retained, kept_days))
    return retentions


def _tables(projections: Mapping[str, Projection]) -> Iterator[tuple[str, tuple[Projection, Table]]]:
    every = [(one, table) for one in projections.values() for table in one.metadata.sorted_tables]
    names = [table.name for _, table in every]
    for projection, table in every:
        name = table.name if names.count(table.name) == 1 else f"{projection.name}.{table.name}"
        yield name, (projection, table)


def _refuse_unknown(
    setting: str, what: str, days: Mapping[str, int], known: set[str], usable: set[str] | None = None
) -> None:
    if unknown := sorted(days.keys() - known):
        there = ", ".join(sorted(known if usable is None else usable)) or "none"
        raise Misconfigured(f"{setting} names {', '.join(unknown)}: no such {what}; expected one of {there}")
