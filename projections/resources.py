"""What emitted the data: OpenTelemetry's resource and instrumentation scope, kept once for all rows that come from it.

A generation that needs them has a table `resources`, and its rows refer to it by `resource_id`: a hash of the partition and of
all that the row of `resources` says. The partition is part of it so that two transactions never write the same row. Rows whose
events name neither a resource nor a scope refer to none. Nothing counts who refers to a resource: an erasure and prune sweep
those that nobody refers to any more (docs/adr/0023).
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from itertools import count
from typing import Any, Final, NamedTuple

from psycopg import Connection, Cursor, sql
from sqlalchemy import Column, Index, MetaData, SmallInteger, Table, Text, Uuid
from sqlalchemy.dialects.postgresql import JSONB

from spanfold.schemas.codec import Fields

RESOURCES: Final = "resources"
RESOURCE_ID: Final = "resource_id"

CONTENT: Final = ("resource", "scope_name", "scope_version", "scope_attributes")
"""The columns that say what a resource is."""


class Source(NamedTuple):
    """A resource and a scope; documents as Postgres' jsonb takes them."""

    resource: bytes
    scope_name: str
    scope_version: str
    scope_attributes: bytes


NOBODY: Final = Source(b"\x01{}", "", "", b"\x01{}")
"""The source of an event that names neither resource nor scope."""

SourceIds = Mapping[Source, bytes | None]
"""The resource_id of each source, as 16 bytes; None for NOBODY."""


def resources_table(metadata: MetaData) -> Table:
    """The table `resources` of a projection."""
    return Table(
        RESOURCES,
        metadata,
        Column(RESOURCE_ID, Uuid, primary_key=True),
        Column("partition", SmallInteger, nullable=False),
        Column("resource", JSONB, nullable=False),
        Column("scope_name", Text, nullable=False),
        Column("scope_version", Text, nullable=False),
        Column("scope_attributes", JSONB, nullable=False),
    )


def resource_id(table: str) -> tuple[Column[Any], Index]:
    """The column with which rows of this table refer to `resources`, and its index."""
    return Column(RESOURCE_ID, Uuid), Index(f"{table}_{RESOURCE_ID}", RESOURCE_ID)


def refers_to_resources(table: Table) -> bool:
    """Whether rows of the table refer to `resources`."""
    return table.name != RESOURCES and RESOURCE_ID in table.columns


def source_of(fields: Fields) -> Source:
    """The source of an event."""
    return Source(fields["resource"], fields["scope_name"], fields["scope_version"], fields["scope_attributes"])


def keep(cursor: Cursor[Any], schema: str, partition: int, sources: Iterable[Source]) -> SourceIds:
    """The ids of these sources. Those that the table lacks are added."""
    ids: dict[Source, bytes | None] = {NOBODY: None}
    new = [source for source in sources if source != NOBODY]
    for salt in count():
        if not new:
            return ids
        hashes = [hash_of(partition, source, salt) for source in new]
        ids |= zip(new, hashes, strict=True)
        # those whose hash another source has
        new = _add(cursor, schema, partition, new, hashes)
    raise AssertionError("unreachable")


def hash_of(partition: int, source: Source, salt: int) -> bytes:
    """The 16 bytes of a resource's id."""
    parts = (str(partition).encode(), *(part.encode() if isinstance(part, str) else part for part in source))
    # length-prefixed, so that ("a", "bc") and ("ab", "c") differ
    text = b"".join(b"%d:%b" % (len(part), part) for part in parts)
    return hashlib.blake2b(text, digest_size=16, salt=salt.to_bytes(16, "big")).digest()


def sweep(cursor: Cursor[Any], schema: str, partition: int, metadata: MetaData) -> int:
    """Delete the partition's resources that no row refers to; returns how many. The caller holds the partition's checkpoints."""
    statement = sql.SQL("DELETE FROM {table} r WHERE {unused} AND r.partition = %s")
    return cursor.execute(_about_unused(statement, schema, metadata), (partition,)).rowcount


def count_unused(connection: Connection[Any], schema: str, metadata: MetaData) -> int:
    """How many resources no row refers to."""
    statement = sql.SQL("SELECT count(*) FROM {table} r WHERE {unused}")
    ((count,),) = connection.execute(_about_unused(statement, schema, metadata)).fetchall()
    return int(count)


def _about_unused(statement: sql.SQL, schema: str, metadata: MetaData) -> sql.Composed:
    referring = [table.name for table in metadata.sorted_tables if refers_to_resources(table)]
    unused = sql.SQL(" AND ").join(
        sql.SQL("NOT EXISTS (SELECT FROM {table} t WHERE t.resource_id = r.resource_id)").format(
            table=sql.Identifier(schema, name)
        )
        for name in referring
    )
    return statement.format(table=sql.Identifier(schema, RESOURCES), unused=unused)


def _add(
    cursor: Cursor[Any], schema: str, partition: int, sources: Sequence[Source], ids: Sequence[bytes]
) -> list[Source]:
    """Add those that are not there; returns those whose id another source has."""
    table = sql.Identifier(schema, RESOURCES)
    columns = (
        list(ids),
        [source.resource[1:].decode() for source in sources],
        [source.scope_name for source in sources],
        [source.scope_version for source in sources],
        [source.scope_attributes[1:].decode() for source in sources],
    )
    there = cursor.execute(sql.SQL(THERE).format(table=table), columns).fetchall()
    if len(there) < len(sources):
        cursor.execute(sql.SQL(ADD).format(table=table), (partition, *columns))
        there = cursor.execute(sql.SQL(THERE).format(table=table), columns).fetchall()
    return [sources[number - 1] for number, is_same in there if not is_same]


THERE: Final = """
SELECT i.number, (r.resource::text, r.scope_name, r.scope_version, r.scope_attributes::text)
               = (i.resource::jsonb::text, i.scope_name, i.scope_version, i.scope_attributes::jsonb::text)
  FROM unnest(%s::bytea[], %s::text[], %s::text[], %s::text[], %s::text[]) WITH ORDINALITY
       AS i (id, resource, scope_name, scope_version, scope_attributes, number)
  JOIN {table} r ON r.resource_id = encode(i.id, 'hex')::uuid
"""

ADD: Final = """
INSERT INTO {table} (partition, resource_id, resource, scope_name, scope_version, scope_attributes)
SELECT %s, encode(i.id, 'hex')::uuid, i.resource::jsonb, i.scope_name, i.scope_version, i.scope_attributes::jsonb
  FROM unnest(%s::bytea[], %s::text[], %s::text[], %s::text[], %s::text[])
       AS i (id, resource, scope_name, scope_version, scope_attributes)
ON CONFLICT (resource_id) DO NOTHING
"""


# What views show of it: `r` is the row of `resources`

ENVIRONMENT: Final = ("deployment.environment.name", "deployment.environment")
"""OpenTelemetry's name for it, and the one before."""

_ENVIRONMENT: Final = ", ".join(f"r.resource ->> '{name}'" for name in ENVIRONMENT)

SHOWN: Final = f"""
coalesce(r.resource, '{{{{}}}}') AS resource,
       coalesce(r.scope_name, '') AS scope_name,
       coalesce(r.scope_version, '') AS scope_version,
       coalesce(r.scope_attributes, '{{{{}}}}') AS scope_attributes,
       r.resource ->> 'service.version' AS service_version,
       coalesce({_ENVIRONMENT}) AS environment,
       r.resource ->> 'service.instance.id' AS instance
"""

SHOWN_COMMENTS: Final = {
    "resource": "OpenTelemetry's resource: the attributes of what emitted it.",
    "scope_name": "Name of the instrumentation scope; empty if there is none.",
    "scope_version": "Version of the instrumentation scope; empty if there is none.",
    "scope_attributes": "Attributes of the instrumentation scope.",
    "service_version": "service.version of the resource; null if it names none.",
    "environment": "deployment.environment.name of the resource (or deployment.environment); null if it names none.",
    "instance": "service.instance.id of the resource; null if it names none.",
}
