"""Are two generations equal, row by row? Checksums tell where to look; only differing rows are fetched and compared.

Each side is read in a snapshot of its own, because they may stand at the same positions at different times. Rows fall into
buckets by their key; a bucket's checksum adds up the hashes of its rows, so that it does not depend on their order.

Rows are compared together with the resource that they refer to; the table of resources is not compared by itself, because
nobody counts who refers to one, and generations may be swept at different times.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from psycopg import Connection, sql
from sqlalchemy import MetaData, Table

from spanfold.projections.resources import CONTENT, RESOURCE_ID, RESOURCES, refers_to_resources
from spanfold.projections.retention.retention_horizons import Horizons, comparable_from
from spanfold.projections.retention.rules import Retained

BUCKETS: Final = 4096
FETCHED: Final = 64
"""Buckets whose rows are fetched in one go."""

Row = Mapping[str, Any]
Checksums = dict[int, tuple[int, Any]]
"""By bucket: number of rows, sum of their hashes."""


@dataclass(frozen=True, slots=True)
class Side:
    """A generation's tables, seen through a connection that holds its snapshot."""

    connection: Connection[Any]
    schema: str


@dataclass(frozen=True, slots=True)
class Difference:
    """A row that is not the same on both sides. `column` is None if one side lacks the row; then its value there is None."""

    table: str
    key: Row
    column: str | None
    live: Any
    rebuilt: Any

    def __str__(self) -> str:
        where = f"{self.table} {', '.join(f'{name}={value}' for name, value in self.key.items())}"
        if self.column is None:
            return f"{where}: only in {'the rebuilt rows' if self.live is None else 'the live rows'}"
        return f"{where}: {self.column} is {self.live!r}, rebuilt {self.rebuilt!r}"


@dataclass(frozen=True, slots=True)
class TableParity:
    """The result of comparing one table, of its rows from `since` on. `differences` are the first ones; `unequal_buckets` says
    how far they reach.
    """

    table: str
    live_rows: int
    rebuilt_rows: int
    unequal_buckets: int
    differences: Sequence[Difference]
    since: datetime | None = None

    @property
    def equal(self) -> bool:
        return self.unequal_buckets == 0


@dataclass(frozen=True, slots=True)
class Shape:
    """What is compared of a table: these columns, rows told apart by `key`; with `since`, those rows that lie at this time or
    later.
    """

    table: str
    columns: Sequence[str]
    key: Sequence[str]
    since: tuple[Retained, datetime] | None = None
    has_resources: bool = False

    def rows(self, schema: str) -> sql.Composable:
        """The rows of a side, in a FROM clause."""
        table = sql.Identifier(schema, self.table)
        if not self.has_resources:
            return table
        return sql.SQL(WITH_RESOURCES).format(
            table=table, resources=sql.Identifier(schema, RESOURCES), content=_names(CONTENT)
        )


def shapes_of(live: Side, metadata: MetaData, horizons: Horizons) -> list[Shape]:
    """What the live generation has of the tables of `metadata`, but for rows that were pruned: another fold version may have
    other columns.
    """
    there: dict[str, set[str]] = {}
    for name, column in live.connection.execute(COLUMNS, (live.schema,)):
        there.setdefault(name, set()).add(column)
    shapes = []
    for table in metadata.sorted_tables:
        if table.name == RESOURCES:
            continue
        columns = [column.name for column in table.columns if column.name in there.get(table.name, ())]
        has_resources = refers_to_resources(table) and RESOURCE_ID in columns
        if has_resources:
            columns = [*(name for name in columns if name != RESOURCE_ID), *CONTENT]
        key = [name for name in key_of(table) if name in columns]
        if columns:
            since = comparable_from(table, horizons)
            kept = since if since is not None and set(since[0].by) <= set(columns) else None
            shapes.append(Shape(table.name, columns, key or columns, kept, has_resources))
    return shapes


def checksums(side: Side, shape: Shape) -> Checksums:
    """The checksums of one table."""
    statement = sql.SQL(CHECKSUMS).format(
        bucket=_bucket(shape),
        row=_names(shape.columns),
        table=shape.rows(side.schema),
        kept=_kept(shape),
    )
    return {bucket: (rows, total) for bucket, rows, total in side.connection.execute(statement)}


def compare(live: Side, live_sums: Checksums, rebuilt: Side, shape: Shape, first: int) -> TableParity:
    """Compare `live`, whose checksums were taken before, with `rebuilt`; `first`: how many differences to name."""
    rebuilt_sums = checksums(rebuilt, shape)
    buckets = sorted(live_sums.keys() | rebuilt_sums.keys())
    unequal = [bucket for bucket in buckets if live_sums.get(bucket) != rebuilt_sums.get(bucket)]
    differences: list[Difference] = []
    for at in range(0, len(unequal), FETCHED):
        if len(differences) >= first:
            break
        some = unequal[at : at + FETCHED]
        differences += _differences(shape, _rows(live, shape, some), _rows(rebuilt, shape, some))
    since = None if shape.since is None else shape.since[1]
    return TableParity(shape.table, _count(live_sums), _count(rebuilt_sums), len(unequal), differences[:first], since)


def key_of(table: Table) -> list[str]:
    """The columns that tell its rows apart."""
    named = [column.name for column in table.primary_key] or list(table.info.get("key", ()))
    return named or [column.name for column in table.columns]


def _count(sums: Checksums) -> int:
    return sum(rows for rows, _ in sums.values())


def _rows(side: Side, shape: Shape, buckets: Sequence[int]) -> dict[tuple[str, ...], Row]:
    statement = sql.SQL(ROWS).format(
        columns=_names(shape.columns),
        bucket=_bucket(shape),
        table=shape.rows(side.schema),
        kept=_kept(shape),
    )
    rows: dict[tuple[str, ...], Row] = {}
    for values in side.connection.execute(statement, (list(buckets),)):
        row = dict(zip(shape.columns, values, strict=True))
        identity = tuple(str(row[name]) for name in shape.key)
        while identity in rows:  # a row that is there twice is a difference too
            identity = (*identity, "again")
        rows[identity] = row
    return rows


def _differences(
    shape: Shape, live: Mapping[tuple[str, ...], Row], rebuilt: Mapping[tuple[str, ...], Row]
) -> Iterator[Difference]:
    for identity in sorted(live.keys() | rebuilt.keys()):
        was, now = live.get(identity), rebuilt.get(identity)
        key = {name: (was or now or {})[name] for name in shape.key}
        if was is None or now is None:
            yield Difference(shape.table, key, None, was, now)
            continue
        for name, value in was.items():
            if value != now[name]:
                yield Difference(shape.table, key, name, value, now[name])


def _names(columns: Sequence[str]) -> sql.Composable:
    return sql.SQL(", ").join(map(sql.Identifier, columns))


def _bucket(shape: Shape) -> sql.Composable:
    return sql.SQL("(hash_record_extended(ROW({}), 1) & {})::integer").format(
        _names(shape.key), sql.Literal(BUCKETS - 1)
    )


def _kept(shape: Shape) -> sql.Composable:
    if shape.since is None:
        return sql.SQL("true")
    retained, moment = shape.since
    return sql.SQL("{} >= {}").format(retained.time, sql.Literal(moment))


COLUMNS: Final = """
SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = %s
"""

WITH_RESOURCES: Final = """
(SELECT t.*, {content} FROM {table} t LEFT JOIN {resources} r ON r.resource_id = t.resource_id) AS rows
"""

CHECKSUMS: Final = """
SELECT {bucket}, count(*), sum(hash_record_extended(ROW({row}), 0)::numeric)
  FROM {table}
 WHERE {kept}
 GROUP BY 1
"""

ROWS: Final = "SELECT {columns} FROM {table} WHERE {bucket} = ANY (%s) AND {kept}"
