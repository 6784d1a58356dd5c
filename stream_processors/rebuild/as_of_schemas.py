"""Schemas that `spanfold as-of` makes: created, dropped; and which offsets a moment of the past means."""

import re
from collections.abc import Sequence
from typing import Final

from psycopg import sql
from sqlalchemy import Connection, text

from spanfold.language.errors import InvalidInput
from spanfold.language.positions import NextOffsets
from spanfold.postgres.connections import connect
from spanfold.postgres.engine import engine_of
from spanfold.projections.commit.journal import CORE
from spanfold.projections.generation_states import GenerationState
from spanfold.projections.generations import lifecycle
from spanfold.projections.generations.views import READER
from spanfold.stream_processors.rebuild.log_reader import LogReader
from spanfold.stream_processors.rebuild.rebuild_context import RebuildContext

COMMENT_PREFIX: Final = "spanfold as of "
"""How the comment of such a schema begins."""

_NAME: Final = re.compile(r"[a-z_][a-z0-9_]{0,30}")


def create_schema(dsn: str, name: str, moment: str) -> None:
    """Create the schema that the views go to; its comment says which moment it shows. InvalidInput when there is one of that
    name, or the name is none.
    """
    if not _NAME.fullmatch(name) or name.startswith("pg_"):
        raise InvalidInput(
            f"{name!r} can't be a schema name: use up to 31 characters of a to z, 0 to 9 and _, not starting with a digit"
        )
    with connect(dsn, "spanfold as-of") as connection, connection.transaction():
        if connection.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", (name,)).fetchone():
            raise InvalidInput(
                f"the schema {name} exists already: drop it with `spanfold as-of --drop {name}`, or use another name"
            )
        schema, comment = sql.Identifier(name), sql.Literal(COMMENT_PREFIX + moment)
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(schema))
        connection.execute(sql.SQL("COMMENT ON SCHEMA {} IS {}").format(schema, comment))
        connection.execute(sql.SQL("GRANT USAGE ON SCHEMA {} TO {}").format(schema, sql.Identifier(READER)))


def drop_schema(dsn: str, name: str) -> Sequence[str]:
    """Drop a schema that as-of made, with its generations; returns the projections that were in it. InvalidInput for any other
    schema.
    """
    with engine_of(dsn).begin() as connection:
        comment = connection.execute(text(COMMENT), {"schema": name}).scalar_one_or_none()
        if not str(comment).startswith(COMMENT_PREFIX):
            raise InvalidInput(f"{name} is not a schema that `spanfold as-of` created")
        connection.exec_driver_sql(f'DROP SCHEMA "{name}" CASCADE')
        projections = connection.execute(text(PROJECTIONS_OF), {"schema": name}).scalars().all()
        for projection in projections:
            _drop_generation(connection, projection, generation_schema(name, projection))
    return projections


def _drop_generation(connection: Connection, projection: str, schema: str) -> None:
    for generation in lifecycle.generations_of(connection, projection, GenerationState.AS_OF):
        if generation.schema == schema:
            lifecycle.drop_generation(connection, projection, generation)


def generation_schema(schema: str, projection: str) -> str:
    """Where the tables are of which `schema` has the views."""
    return f"{schema}_{projection}"


def offsets_at(context: RebuildContext, moment_us: int) -> NextOffsets:
    """The first offset of each partition that the broker appended at this moment (µs since 1970 UTC) or later; where there is
    none, the log's end.
    """
    ms = moment_us // 1000
    partitions = {at: (context.topics[at[0]].name, at[1]) for at in context.judged()}
    with LogReader(context.settings) as reader:
        offsets = reader.offsets_for_times(dict.fromkeys(partitions.values(), ms))
        return {
            at: reader.watermarks(*on_broker)[1] if (offset := offsets[on_broker]) is None else offset
            for at, on_broker in partitions.items()
        }


def offsets_for(context: RebuildContext, named: NextOffsets) -> NextOffsets:
    """The named offsets of the projection's partitions. InvalidInput when one of them is not named."""
    judged = context.judged()
    if missing := sorted(judged.keys() - named.keys()):
        names = ", ".join(f"{topic}/{partition}@…" for topic, partition in missing)
        raise InvalidInput(
            f"{context.projection.name} is also folded from these partitions; pass an offset for each: {names}"
        )
    return {partition: named[partition] for partition in judged}


def erased_since(context: RebuildContext, until: NextOffsets) -> set[str]:
    """The traces that were erased at these offsets or later: none of them is shown, though the log knew them then."""
    erased = context.control.execute(ERASURES).fetchall()
    return {trace_id for topic, at, trace_id, offset in erased if offset >= until.get((topic, at), offset + 1)}


COMMENT: Final = "SELECT obj_description(oid, 'pg_namespace') FROM pg_namespace WHERE nspname = :schema"

PROJECTIONS_OF: Final = f"""
SELECT projection FROM {CORE}.generations
 WHERE state = '{GenerationState.AS_OF}' AND schema_name = :schema || '_' || projection
"""

ERASURES: Final = f"SELECT topic, partition, aggregate_id, kafka_offset FROM {CORE}.erased"
