"""A package with a projection of its own, which counts spans by operation and fails on an operation named `poison` until its
repair has been installed: until the file that POISON_REPAIRED names is there when it is imported.
"""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from psycopg import Cursor
from sqlalchemy import BigInteger, Column, MetaData, SmallInteger, Table, Text

from spanfold.language.topics import TRACES
from spanfold.projections.facts import Fact
from spanfold.projections.projection import View

POISON: Final = "poison"
NAME: Final = "operations_seen"
REPAIRED: Final = "POISON_REPAIRED"

TABLE: Final = Table(
    NAME,
    MetaData(),
    Column("partition", SmallInteger, primary_key=True),
    Column("operation_name", Text, primary_key=True),
    Column("spans", BigInteger, nullable=False),
)

VIEW: Final = View(
    name=NAME,
    comment="Spans by operation.",
    select=f"SELECT operation_name, sum(spans)::bigint AS spans FROM {{schema}}.{NAME} GROUP BY operation_name",
    comments={"operation_name": "Name of the spans.", "spans": "How many were recorded."},
)


class OperationsSeen:
    """See spanfold.projections.projection.Projection."""

    name = NAME
    fold_version = 1
    topics = (TRACES,)
    metadata = TABLE.metadata
    views = (VIEW,)
    repaired = Path(os.environ.get(REPAIRED, "")).is_file()

    def fold(self, facts: Sequence[Fact]) -> Counter[str]:
        names = [fields["operation_name"] for _, event_type, fields in facts if event_type == "SpanRecorded"]
        if POISON in names and not self.repaired:
            raise ValueError("nobody thought of this operation")
        return Counter(names)

    def combine(self, one: Counter[str], other: Counter[str]) -> Counter[str]:
        return one + other

    def merge(self, cursor: Cursor[Any], schema: str, partial: Counter[str], partition: int) -> None:
        cursor.executemany(
            f"INSERT INTO {schema}.{NAME} AS o VALUES (%s, %s, %s) "
            "ON CONFLICT (partition, operation_name) DO UPDATE SET spans = o.spans + excluded.spans".encode(),
            [(partition, name, spans) for name, spans in sorted(partial.items())],
        )


PROJECTION: Final = OperationsSeen()


def package(folder: Path) -> Path:
    """What an installed package with this projection looks like to importlib.metadata; the folder to put on PYTHONPATH."""
    about = folder / "operations_seen-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: operations-seen\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(
        "[spanfold.projections]\noperations_seen = tests.outages.poison:PROJECTION\n"
    )
    return folder
