"""A projection of somebody's own in the workers of a schedule: it folds what `traces` folds, and fails while a table says so."""

from collections.abc import Sequence
from typing import Any, Final

from psycopg import Connection, Cursor

from spanfold.projections.projection import View
from spanfold.projections.traces import TracesPartial, TracesProjection

NAME: Final = "fickle"


class Fickle(TracesProjection):
    """See the module."""

    name = NAME
    views: Sequence[View] = ()

    def merge(self, cursor: Cursor[Any], schema: str, partial: TracesPartial, partition: int) -> None:
        super().merge(cursor, schema, partial, partition)
        if cursor.execute("SELECT broken FROM public.fickle").fetchone() == (True,):
            raise ValueError("out of sorts")


def create_switch(connection: Connection[Any]) -> None:
    """The table that says whether it fails; it does not yet."""
    connection.execute("CREATE TABLE public.fickle AS SELECT false AS broken")


def set_broken(connection: Connection[Any], broken: bool) -> None:
    """Have it fail from now on, or no more."""
    connection.execute("UPDATE public.fickle SET broken = %s", [broken])


def why_suspended(connection: Connection[Any]) -> str:
    """Its reason, empty while workers fold it."""
    row = connection.execute("SELECT suspended_because FROM spanfold.suspensions WHERE name = %s", [NAME]).fetchone()
    return row[0] if row else ""


def differences(connection: Connection[Any]) -> list[str]:
    """The tables that differ from those of `traces`, with the number of rows that only one of both has."""
    different = []
    for table in TracesProjection.metadata.sorted_tables:
        ours, theirs = (f"SELECT t::text FROM {schema}.{table.name} t" for schema in (f"{NAME}_g1", "traces_g1"))
        query = f"SELECT count(*) FROM (({ours} EXCEPT ALL {theirs}) UNION ALL ({theirs} EXCEPT ALL {ours})) AS d"
        ((rows,),) = connection.execute(query.encode()).fetchall()
        if rows:
            different.append(f"{NAME}.{table.name}: {rows} rows differ from those of traces")
    return different
