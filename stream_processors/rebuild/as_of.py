"""`spanfold as-of`: the tables as the log knew them at a moment, in a schema of their own, beside the live ones."""

import re
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime
from typing import Final

import psycopg
from confluent_kafka import TopicPartition
from psycopg import sql
from sqlalchemy import text

from spanfold.language.errors import InvalidInput, Misconfigured
from spanfold.language.positions import Position
from spanfold.postgres.engine import engine_of
from spanfold.projections.commit.journal import CORE
from spanfold.projections.generations import lifecycle
from spanfold.projections.generations.shadow import Positions
from spanfold.projections.generations.views import READER, show_in
from spanfold.stream_processors.rebuild.loading import Loading, Workplace, refuse_what_the_log_lacks
from spanfold.stream_processors.rebuild.replay import LogReader

OURS: Final = "spanfold as of "
"""How the comment of such a schema begins."""

_NAME: Final = re.compile(r"[a-z_][a-z0-9_]{0,30}")


def create_schema(dsn: str, into: str, words: str) -> None:
    """Create the schema that the views go to. InvalidInput when there is one of that name, or the name is none."""
    if not _NAME.fullmatch(into) or into.startswith("pg_"):
        raise InvalidInput(
            f"{into!r} is no name for a schema: up to 31 of a to z, 0 to 9 and _, not beginning with a digit"
        )
    with psycopg.connect(dsn, autocommit=True) as connection, connection.transaction():
        if connection.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", (into,)).fetchone():
            raise InvalidInput(
                f"there is a schema {into} already: `spanfold as-of --drop {into}`, or take another name"
            )
        name = sql.Identifier(into)
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(name))
        connection.execute(sql.SQL("COMMENT ON SCHEMA {} IS {}").format(name, sql.Literal(OURS + words)))
        connection.execute(sql.SQL("GRANT USAGE ON SCHEMA {} TO {}").format(name, sql.Identifier(READER)))


def as_of(place: Workplace, into: str, until: Positions, workers: int) -> int:
    """Load the projection up to these positions and show it in `into`; returns how many records that took.

    Misconfigured when the log no longer reaches back to its start, or these positions have not been judged yet.
    """
    judged = place.judged()
    beyond = {at: end for at, end in until.items() if end > judged[at]}
    if beyond:
        words = ", ".join(f"{Position(*at, end)} (now {judged[at]})" for at, end in beyond.items())
        raise Misconfigured(f"the workers have not come so far yet: {words}")
    schema = f"{into}_{place.projection.name}"
    with place.engine.begin() as connection:
        generation = lifecycle.create_generation(connection, place.projection, "as_of", schema)
    try:
        with closing(Loading(place, generation, workers)) as loading:
            refuse_what_the_log_lacks(place, loading.reader, loading.positions(), until)
            loading.load(until)
            loading.trim()
            loading.create_indexes()
            folded = loading.folded
        with place.engine.begin() as connection:
            show_in(connection, place.projection, schema, into)
    except BaseException:
        place.drop(generation)
        raise
    return folded


def positions_at(place: Workplace, moment: datetime) -> Positions:
    """The first offset of each partition that the broker appended at `moment` or later; where there is none, the log's end."""
    ms = int(moment.timestamp() * 1000)
    judged = place.judged()
    asked = [TopicPartition(place.topics[name].name, partition, ms) for name, partition in judged]
    with closing(LogReader(place.settings)) as reader:
        found = reader.offsets_for_times(asked)
        positions = {}
        for name, partition in judged:
            topic = place.topics[name].name
            offset = found[topic, partition]
            positions[name, partition] = reader.watermarks(topic, partition)[1] if offset is None else offset
    return positions


def erased_since(place: Workplace, until: Positions) -> set[str]:
    """The traces that were erased at these positions or later: none of them is shown, though the log knew them then."""
    rows = place.control.execute(ERASURES).fetchall()
    return {trace_id for topic, partition, trace_id, at in rows if at >= until.get((topic, partition), at + 1)}


def drop(dsn: str, into: str) -> Sequence[str]:
    """Drop what an as-of made; returns the projections that were in it. InvalidInput when the schema is none of ours."""
    with engine_of(dsn).begin() as connection:
        comment = connection.execute(text(COMMENT), {"into": into}).scalar_one_or_none()
        if not str(comment).startswith(OURS):
            raise InvalidInput(f"there is no schema {into} that `spanfold as-of` has made")
        connection.exec_driver_sql(f'DROP SCHEMA "{into}" CASCADE')
        names = connection.execute(text(PROJECTIONS_OF), {"into": into}).scalars().all()
        for name in names:
            for each in lifecycle.generations_of(connection, name):
                if (each.state, each.schema) == ("as_of", f"{into}_{name}"):
                    lifecycle.drop_generation(connection, name, each)
    return names


def parsed_moment(words: str) -> datetime | None:
    """RFC 3339, UTC where it names no zone; None when it is something else."""
    try:
        found = datetime.fromisoformat(words)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def positions_for(place: Workplace, named: Positions) -> Positions:
    """The named positions of the projection's topics. InvalidInput when one of their partitions is not named."""
    judged = place.judged()
    missing = sorted(judged.keys() - named.keys())
    if missing:
        words = ", ".join(f"{topic}/{partition}@…" for topic, partition in missing)
        raise InvalidInput(
            f"{place.projection.name} is folded from these partitions too, name an offset for each: {words}"
        )
    return {at: named[at] for at in judged}


COMMENT: Final = "SELECT obj_description(oid, 'pg_namespace') FROM pg_namespace WHERE nspname = :into"

PROJECTIONS_OF: Final = f"""
SELECT projection FROM {CORE}.generations WHERE state = 'as_of' AND schema_name = :into || '_' || projection
"""

ERASURES: Final = f"SELECT topic, partition, aggregate_id, kafka_offset FROM {CORE}.erased"
