"""Which topics and projections are suspended, and what the log has lost: read from the public views."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import psycopg
from psycopg.rows import class_row


@dataclass(frozen=True, slots=True)
class Suspension:
    """A topic, or the generation of a projection, that workers leave alone. `kind` is `topic` or `projection`."""

    kind: str
    name: str
    generation: int | None
    suspended_at: datetime
    suspended_because: str

    def __str__(self) -> str:
        repair = "Repair it, run `spanfold workers restart`" if self.kind == "projection" else "Repair the cause"
        return (
            f"{self.kind} {self.name} is suspended (since {self.suspended_at:%Y-%m-%d %H:%M:%S} UTC): {self.suspended_because}. "
            f"{repair}, then run `spanfold resume {self.name}`"
        )


@dataclass(frozen=True, slots=True)
class AcceptedLoss:
    """Offsets [from_offset, to_offset) of a partition, which the log lost before this projection (or `journal`, `snapshots`) had
    folded them.
    """

    topic: str
    partition: int
    projection: str
    from_offset: int
    to_offset: int
    accepted_at: datetime

    def __str__(self) -> str:
        return (
            f"{self.topic}/{self.partition} lost offsets {self.from_offset} to {self.to_offset - 1} before {self.projection} had "
            f"them; accepted {self.accepted_at:%Y-%m-%d %H:%M:%S} UTC"
        )


def suspensions(connection: psycopg.Connection[Any]) -> Sequence[Suspension]:
    """What is suspended, the oldest first."""
    with connection.cursor(row_factory=class_row(Suspension)) as cursor:
        return cursor.execute(SUSPENSIONS).fetchall()


def accepted_losses(connection: psycopg.Connection[Any]) -> Sequence[AcceptedLoss]:
    """What the log has lost."""
    with connection.cursor(row_factory=class_row(AcceptedLoss)) as cursor:
        return cursor.execute(ACCEPTED_LOSSES).fetchall()


SUSPENSIONS: Final = """
SELECT kind, name, generation, suspended_at, suspended_because FROM spanfold.suspensions ORDER BY suspended_at
"""

ACCEPTED_LOSSES: Final = """
SELECT topic, partition, projection, from_offset, to_offset, accepted_at
  FROM spanfold.log_gaps
 ORDER BY topic, partition, projection, from_offset
"""
