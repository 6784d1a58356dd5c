"""A projection of somebody's own that fails, and what is shown of it."""

from collections.abc import Callable, Sequence
from typing import Any, Final

from psycopg import Cursor

from spanfold.projections.facts import Fact
from tests.support.databases import Ledger
from tests.support.stores import Second

POISON: Final = 7
"""Offset of the record on which the faults show."""

Fault = Callable[[Cursor[Any]], None]


def raises(error: Exception) -> Fault:
    def fault(_: Cursor[Any]) -> None:
        raise error

    return fault


def runs(statement: str) -> Fault:
    def fault(cursor: Cursor[Any]) -> None:
        cursor.execute(statement.encode())

    return fault


class Own(Second):
    """Somebody's own projection, with a fault in its merge, or without one in its fold, until it is repaired."""

    def __init__(self, fault: Fault | None = None) -> None:
        self.fault, self.repaired = fault, False

    def fold(self, facts: Sequence[Fact]) -> Any:
        poisoned = not self.repaired and any(offset == POISON for offset, _, _ in facts)
        if poisoned and self.fault is None:
            raise KeyError("sku")
        return super().fold(facts), poisoned

    def combine(self, one: Any, other: Any) -> Any:
        return super().combine(one[0], other[0]), one[1] or other[1]

    def merge(self, cursor: Cursor[Any], schema: str, partial: Any, partition: int) -> None:
        super().merge(cursor, schema, partial[0], partition)
        if partial[1] and self.fault is not None:
            self.fault(cursor)


def reason(ledger: Ledger) -> str:
    """Why the second projection is suspended."""
    query = (
        "SELECT suspended_because FROM spanfold.projections WHERE projection = 'second' AND suspended_at IS NOT NULL"
    )
    row = ledger.execute(query).fetchone()
    return row[0] if row else ""
