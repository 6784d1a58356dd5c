"""Horizons: from which time on a table's rows are kept, in every generation; and deleting the rows before.

A horizon is stored before the first row is deleted, and never goes back. Rebuilds and comparisons ignore the rows before it.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from psycopg import Connection, sql
from sqlalchemy import MetaData, Table

from spanfold.language.progress import NO_PROGRESS, ProgressListener
from spanfold.projections.commit.journal import CORE
from spanfold.projections.retention.rules import Retained, retained_of

PAGES: Final = 1024
"""So many pages (8 MiB) are looked through in one transaction, which locks only the rows that it deletes."""

Horizons = Mapping[str, datetime]
"""By table of one projection."""


def horizons_of(connection: Connection[Any], projection: str) -> Horizons:
    """The horizons of the projection's tables, as this connection's snapshot has them."""
    return dict(connection.execute(HORIZONS, (projection,)).fetchall())


def raise_horizon(connection: Connection[Any], projection: str, table: str, kept_from: datetime) -> None:
    """From now on rows that lie before this may be deleted."""
    connection.execute(RAISE, (projection, table, kept_from))


def comparable_from(table: Table, horizons: Horizons) -> tuple[Retained, datetime] | None:
    """From which time on two generations must have the same rows; None without a horizon, of the table itself or of the one
    that its rows are counted from.
    """
    retained = retained_of(table)
    if retained is None:
        return None
    from_when = [horizons[table.name]] if table.name in horizons else []
    if retained.counted_from is not None:
        source, days = retained.counted_from
        from_when += [horizons[source] + timedelta(days=days)] if source in horizons else []
    return (retained, max(from_when)) if from_when else None


def rows_below(connection: Connection[Any], schema: str, table: Table, retained: Retained, before: datetime) -> int:
    """How many rows of this generation lie before that."""
    statement = sql.SQL("SELECT count(*) FROM {} WHERE {} < %s").format(
        sql.Identifier(schema, table.name), retained.time
    )
    ((count,),) = connection.execute(statement, (before,)).fetchall()
    return int(count)


def trim(
    connection: Connection[Any],
    schema: str,
    metadata: MetaData,
    horizons: Horizons,
    progress: ProgressListener = NO_PROGRESS,
) -> dict[str, int]:
    """Delete the rows of this generation that lie before the horizons, in many short transactions; returns how many of each
    table. `connection` is in autocommit mode.
    """
    return {
        table.name: _trim(connection, schema, table.name, retained, horizons[table.name], progress)
        for table in metadata.sorted_tables
        if table.name in horizons and (retained := retained_of(table)) is not None
    }


def _trim(
    connection: Connection[Any],
    schema: str,
    table: str,
    retained: Retained,
    before: datetime,
    progress: ProgressListener,
) -> int:
    """By ranges of pages: each is read once, and no index is needed for it."""
    name = sql.Identifier(schema, table)
    statement = sql.SQL(DELETE).format(table=name, time=retained.time)
    ((pages,),) = connection.execute(PAGES_OF, (name.as_string(connection),)).fetchall()
    deleted = 0
    for page in range(0, pages, PAGES):
        deleted += connection.execute(statement, (f"({page},0)", f"({page + PAGES},0)", before)).rowcount
        progress.advanced(min(page + PAGES, pages), pages, f"pages of {table}")
    return deleted


HORIZONS: Final = f"SELECT table_name, kept_from FROM {CORE}.retention_horizons WHERE projection = %s"

RAISE: Final = f"""
INSERT INTO {CORE}.retention_horizons AS h (projection, table_name, kept_from) VALUES (%s, %s, %s)
ON CONFLICT (projection, table_name) DO UPDATE SET kept_from = greatest(h.kept_from, excluded.kept_from)
"""

PAGES_OF: Final = "SELECT pg_relation_size(%s::regclass) / current_setting('block_size')::bigint"

DELETE: Final = "DELETE FROM {table} WHERE ctid >= %s::tid AND ctid < %s::tid AND {time} < %s"
