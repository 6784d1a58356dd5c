"""Generations: each projection's tables live in a schema of their own; the public views show the live one.

Also what must be in the database before the first batch: the registered topics with their checkpoints, the journals, and
a first generation of every installed projection. `prepare` is idempotent and safe to run from several processes.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Final

import psycopg
from sqlalchemy import Connection, inspect, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.schema import CreateIndex, CreateSchema, CreateTable, DropSchema

from spanfold import migrations
from spanfold.language.errors import Misconfigured
from spanfold.language.topics import Topic, TopicOnBroker
from spanfold.postgres.engine import engine_of
from spanfold.projections.commit.arbiter import arbiter_of
from spanfold.projections.commit.journal import CORE, JOURNAL
from spanfold.projections.generation_states import LOADED_IN_BULK, GenerationState
from spanfold.projections.generations.views import show, show_journals
from spanfold.projections.projection import Projection

_PREPARE_LOCK: Final = 0x70726570


@dataclass(frozen=True, slots=True)
class GenerationRow:
    """A generation as it is registered."""

    number: int
    schema: str
    fold_version: int
    state: GenerationState
    suspended: bool = False


def prepare(dsn: str, topics: Collection[TopicOnBroker], projections: Mapping[str, Projection]) -> list[str]:
    """Bring the database to this version: migrate, register topics, create journals and first generations. Returns a
    line about each projection that this code cannot keep up to date yet, with what to do.

    Misconfigured when a topic is not the one whose records are in the tables.
    """
    migrations.upgrade(dsn)
    engine = engine_of(dsn)
    with engine.begin() as connection:
        alone(connection)
        for topic in topics:
            _register(connection, topic)
            if (journal := arbiter_of(topic.topic).table) is not None:
                journal.create(connection, checkfirst=True)
            add_checkpoints(connection, JOURNAL, 0, [topic.topic])
        show_journals(connection, [topic.topic for topic in topics])
        notices = [_prepare_projection(connection, projection) for projection in projections.values()]
    return list(filter(None, notices))


def alone(connection: Connection) -> None:
    """Until the transaction ends nobody else prepares or swaps: whoever reads which generation is live, and then points views
    at it, must not be overtaken.
    """
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _PREPARE_LOCK})


def _prepare_projection(connection: Connection, projection: Projection) -> str:
    """Show its live generation, or make the first one if nothing has been judged yet. Returns what is to be done else."""
    live = live_generation(connection, projection.name)
    if to_do := _to_do(connection, projection, live):
        return to_do
    live = live or create_generation(connection, projection, GenerationState.LIVE)
    show(connection, projection, live.schema)
    return ""


def to_be_rebuilt(dsn: str, projections: Mapping[str, Projection]) -> list[str]:
    """A line about each projection that this code cannot keep up to date, with what to do; the database, which has been prepared,
    is only looked at.
    """
    engine = engine_of(dsn)
    with engine.connect() as connection:
        lines = [
            _to_do(connection, projection, live_generation(connection, projection.name))
            for projection in projections.values()
        ]
    return list(filter(None, lines))


def _to_do(connection: Connection, projection: Projection, live: GenerationRow | None) -> str:
    if live is not None:
        return _left_alone(connection, projection, live) if live.fold_version != projection.fold_version else ""
    if _judged_already(connection, projection):
        name = projection.name
        return f"{name} is new here: run `spanfold rebuild {name}` to fold what the log has for it"
    return ""


def _left_alone(connection: Connection, projection: Projection, live: GenerationRow) -> str:
    """What to do about a live generation that another version of the code has made."""
    name, own = projection.name, projection.fold_version
    previous = generations_of(connection, name, GenerationState.PREVIOUS)
    before = any(generation.fold_version == own for generation in previous)
    way_out = (
        f"start this process with the newer code, or go back with `spanfold rollback {name}`"
        if before
        else f"run `spanfold rebuild {name}`"
    )
    return f"{name} is shown as fold version {live.fold_version} made it, this code has {own} and leaves it alone: {way_out}"


def _judged_already(connection: Connection, projection: Projection) -> bool:
    query = text(JUDGED_ALREADY)
    return bool(connection.execute(query, {"topics": [topic.name for topic in projection.topics]}).scalar_one())


def _register(connection: Connection, on_broker: TopicOnBroker) -> None:
    topic = on_broker.topic
    now = {
        "broker_name": on_broker.name,
        "broker_topic_id": on_broker.topic_id,
        "kind": topic.kind.value,
        "partitions": on_broker.partitions,
        "window_days": topic.window_days,
        "future_days": topic.future_days,
    }
    columns = ", ".join(now)
    row = connection.execute(
        text(f"SELECT {columns} FROM {CORE}.topics WHERE topic = :t"), {"t": topic.name}
    ).one_or_none()
    if row is None:
        values = ", ".join(f":{name}" for name in now)
        connection.execute(
            text(f"INSERT INTO {CORE}.topics (topic, {columns}) VALUES (:t, {values})"),
            {"t": topic.name, **now},
        )
        return
    differing = [f"{name} is {now[name]!r}, was {was!r}" for name, was in row._mapping.items() if was != now[name]]
    if differing:
        raise Misconfigured(
            f"{on_broker.name} is not the topic that these tables were folded from: {'; '.join(differing)}. "
            "A topic's partitions and rules are for life: name the old topic's broker, or fold into an empty database."
        )


def live_generation(connection: Connection, projection: str) -> GenerationRow | None:
    """The projection's live generation, if it has one."""
    return next(iter(generations_of(connection, projection, GenerationState.LIVE)), None)


def generations_of(connection: Connection, projection: str, *states: GenerationState) -> list[GenerationRow]:
    """The projection's generations in these states, all without one; oldest first."""
    rows = connection.execute(text(GENERATIONS), {"p": projection})
    generations = [
        GenerationRow(number, schema, fold_version, GenerationState(state), suspended)
        for number, schema, fold_version, state, suspended in rows
    ]
    return [generation for generation in generations if not states or generation.state in states]


def create_generation(
    connection: Connection, projection: Projection, state: GenerationState, schema: str | None = None
) -> GenerationRow:
    """Create the tables of a new generation in a schema of their own, and register it with checkpoints at 0.

    A generation that is to be loaded gets the indexes that its fold does not need later, from `create_indexes`.
    """
    number = connection.execute(text(NEXT_NUMBER), {"p": projection.name}).scalar_one()
    created = GenerationRow(number, schema or f"{projection.name}_g{number}", projection.fold_version, state)
    connection.execute(CreateSchema(created.schema))
    translated = connection.execution_options(schema_translate_map={None: created.schema})
    for table in projection.metadata.sorted_tables:
        translated.execute(CreateTable(table))
    create_indexes(connection, projection, created, [True] if state in LOADED_IN_BULK else [True, False])
    connection.execute(text(ADD_GENERATION), {"p": projection.name, **asdict(created)})
    add_checkpoints(connection, projection.name, created.number, projection.topics)
    return created


def create_indexes(
    connection: Connection, projection: Projection, generation: GenerationRow, needed_by_fold: Collection[bool]
) -> None:
    """Create those secondary indexes that the fold needs (marked with NEEDED_BY_FOLD), or those that it doesn't, or both."""
    translated = connection.execution_options(schema_translate_map={None: generation.schema})
    for table in projection.metadata.sorted_tables:
        for index in sorted(table.indexes, key=lambda index: str(index.name)):
            if bool(index.info.get("needed_by_fold")) in needed_by_fold:
                translated.execute(CreateIndex(index, if_not_exists=True))


def drop_generation(connection: Connection, projection: str, generation: GenerationRow) -> None:
    """Drop the tables of a generation that is not live, with its checkpoints. Waits for a commit that writes to it.

    Misconfigured when something of somebody else's, a view for instance, is built on them.
    """
    which = {"p": projection, "g": generation.number}
    connection.execute(text(LOCK_CHECKPOINTS_OF), which)
    connection.execute(text(f"DELETE FROM {CORE}.checkpoints WHERE projection = :p AND generation = :g"), which)
    connection.execute(text(f"DELETE FROM {CORE}.generations WHERE projection = :p AND generation = :g"), which)
    tables = [f'"{generation.schema}"."{name}"' for name in inspect(connection).get_table_names(generation.schema)]
    try:
        if tables:
            connection.exec_driver_sql(f"DROP TABLE {', '.join(tables)}")
        connection.execute(DropSchema(generation.schema))
    except DBAPIError as error:
        if not isinstance(error.orig, psycopg.errors.DependentObjectsStillExist):
            raise
        raise Misconfigured(
            f"generation {generation.number} of {projection} can't be dropped, something is built on its tables: "
            f"{error.orig.diag.message_detail}"
        ) from error


def set_state(connection: Connection, projection: str, generation: GenerationRow, state: GenerationState) -> None:
    """Register that the generation is in this state now, and is not suspended."""
    connection.execute(text(SET_STATE), {"state": state, "p": projection, "g": generation.number})


def add_checkpoints(connection: Connection, owner: str, generation: int, topics: Iterable[Topic]) -> None:
    """A checkpoint at 0 in every partition of these topics, where the owner's generation lacks it."""
    for topic in topics:
        connection.execute(text(ADD_CHECKPOINTS), {"owner": owner, "generation": generation, "topic": topic.name})


ADD_GENERATION: Final = f"""
INSERT INTO {CORE}.generations (projection, generation, schema_name, fold_version, state)
VALUES (:p, :number, :schema, :fold_version, :state)
"""

GENERATIONS: Final = f"""
SELECT generation, schema_name, fold_version, state, suspended_at IS NOT NULL
  FROM {CORE}.generations
 WHERE projection = :p
 ORDER BY generation
"""

SET_STATE: Final = f"""
UPDATE {CORE}.generations
   SET state = :state, suspended_at = NULL, suspended_because = NULL
 WHERE projection = :p AND generation = :g
"""

NEXT_NUMBER: Final = f"SELECT coalesce(max(generation), 0) + 1 FROM {CORE}.generations WHERE projection = :p"

JUDGED_ALREADY: Final = f"""
SELECT coalesce(bool_or(next_offset > 0), false) FROM {CORE}.checkpoints
 WHERE projection = '{JOURNAL}' AND topic = ANY (:topics)
"""

LOCK_CHECKPOINTS_OF: Final = f"""
SELECT FROM {CORE}.checkpoints WHERE projection = :p AND generation = :g ORDER BY topic, partition FOR UPDATE
"""

ADD_CHECKPOINTS: Final = f"""
INSERT INTO {CORE}.checkpoints (topic, partition, projection, generation, next_offset)
SELECT topic, partition, :owner, :generation, 0
  FROM {CORE}.topics t
 CROSS JOIN LATERAL generate_series(0, t.partitions - 1) AS partition
 WHERE t.topic = :topic
ON CONFLICT DO NOTHING
"""
