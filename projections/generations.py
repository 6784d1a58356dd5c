"""Generations: each projection's tables live in a schema of their own; the public views show the live one.

Also what must be in the database before the first batch: the registered topics with their checkpoints, the journals, and
a first generation of every installed projection. `prepare` is idempotent and safe to run from several processes.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Final

from sqlalchemy import Connection, create_engine, pool, text

import migrations
from projections.arbiter import arbiter_of
from projections.journal import CORE
from projections.projection import Projection, View
from projections.store import JOURNAL
from spanfold.errors import Misconfigured
from spanfold.topics import Topic, TopicOnBroker

PUBLIC: Final = "spanfold"
_PREPARE_LOCK: Final = 0x70726570


def prepare(dsn: str, topics: Collection[TopicOnBroker], projections: Mapping[str, Projection]) -> None:
    """Bring the database to this version: migrate, register topics, create journals and first generations.

    Misconfigured when a topic is not the one whose records are in the tables.
    """
    migrations.upgrade(dsn)
    engine = create_engine(migrations.sqlalchemy_url(dsn), poolclass=pool.NullPool)
    with engine.begin() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _PREPARE_LOCK})
        for topic in topics:
            _register(connection, topic)
            if (journal := arbiter_of(topic.topic).table) is not None:
                journal.create(connection, checkfirst=True)
            add_checkpoints(connection, JOURNAL, [topic.topic])
        _show_journals(connection, [found.topic for found in topics])
        for projection in projections.values():
            schema = _live_schema(connection, projection.name) or create_generation(connection, projection, 1, "live")
            show(connection, projection, schema)
            add_checkpoints(connection, projection.name, projection.topics)


def _register(connection: Connection, found: TopicOnBroker) -> None:
    topic = found.topic
    now = {
        "broker_name": found.name,
        "broker_topic_id": found.topic_id,
        "kind": topic.kind.value,
        "partitions": found.partitions,
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
            f"{found.name} is not the topic that these tables were folded from: {'; '.join(differing)}. "
            "A topic's partitions and rules are for life: name the old topic's broker, or fold into an empty database."
        )


def _show_journals(connection: Connection, topics: Iterable[Topic]) -> None:
    """(Re)create the views over all journals."""
    journals = [(topic.name, arbiter_of(topic)) for topic in topics]
    select = "\nUNION ALL\n".join(
        journal.select.format(topic=name, table=journal.table)
        for name, journal in journals
        if journal.table is not None
    )
    _create_view(connection, View("journal", select, JOURNAL_COMMENT, JOURNAL_COMMENTS), CORE)
    _create_view(connection, View("verdicts", VERDICTS_SELECT, VERDICTS_COMMENT, VERDICTS_COMMENTS), CORE)


def _live_schema(connection: Connection, projection: str) -> str | None:
    query = text(f"SELECT schema_name FROM {CORE}.generations WHERE projection = :p AND state = 'live'")
    found: str | None = connection.execute(query, {"p": projection}).scalar_one_or_none()
    return found


def create_generation(connection: Connection, projection: Projection, number: int, state: str) -> str:
    """Create the tables of a new generation in a schema of their own and register it; returns the schema's name."""
    schema = f"{projection.name}_g{number}"
    connection.execute(text(f'CREATE SCHEMA "{schema}"'))
    projection.metadata.create_all(connection.execution_options(schema_translate_map={None: schema}), checkfirst=False)
    connection.execute(
        text(ADD_GENERATION),
        {"p": projection.name, "g": number, "s": schema, "f": projection.fold_version, "state": state},
    )
    return schema


def show(connection: Connection, projection: Projection, schema: str) -> None:
    """Point the projection's public views at this generation."""
    for view in projection.views:
        _create_view(connection, view, schema)


def _create_view(connection: Connection, view: View, schema: str) -> None:
    """Create or replace the view, unless it was made from the same before: replacing it would wait for its readers."""
    statements = _view_statements(view, schema)
    made_from = {"view": view.name, "made_from": ";\n".join(statements)}
    known = text(f"SELECT FROM {CORE}.shown WHERE view = :view AND made_from = :made_from")
    if connection.execute(known, made_from).first() is not None:
        return
    for statement in statements:
        # exec_driver_sql: view texts have colons of their own
        connection.exec_driver_sql(statement)
    connection.execute(text(REMEMBER_VIEW), made_from)


def _view_statements(view: View, schema: str) -> list[str]:
    def quoted(words: str) -> str:
        return "'" + words.format().replace("'", "''") + "'"

    name = f"{PUBLIC}.{view.name}"
    return [
        f"CREATE OR REPLACE VIEW {name} AS {view.select.format(schema=schema)}",
        f"COMMENT ON VIEW {name} IS {quoted(view.comment)}",
        *(f"COMMENT ON COLUMN {name}.{column} IS {quoted(words)}" for column, words in view.comments.items()),
    ]


def add_checkpoints(connection: Connection, owner: str, topics: Iterable[Topic]) -> None:
    """A checkpoint at 0 in every partition of these topics, for each of the owner's generations that lacks it."""
    for topic in topics:
        connection.execute(text(ADD_CHECKPOINTS), {"owner": owner, "topic": topic.name})


REMEMBER_VIEW: Final = f"""
INSERT INTO {CORE}.shown (view, made_from) VALUES (:view, :made_from)
ON CONFLICT (view) DO UPDATE SET made_from = excluded.made_from
"""

ADD_GENERATION: Final = f"""
INSERT INTO {CORE}.generations (projection, generation, schema_name, fold_version, state)
VALUES (:p, :g, :s, :f, :state)
"""

ADD_CHECKPOINTS: Final = f"""
INSERT INTO {CORE}.checkpoints (topic, partition, projection, generation, next_offset)
SELECT t.topic, p, :owner, g.generation, 0
  FROM {CORE}.topics t
 CROSS JOIN LATERAL generate_series(0, t.partitions - 1) AS p
 CROSS JOIN (SELECT 0 WHERE :owner = '{JOURNAL}'
              UNION ALL
             SELECT generation FROM {CORE}.generations WHERE projection = :owner) AS g (generation)
 WHERE t.topic = :topic
ON CONFLICT DO NOTHING
"""

JOURNAL_COMMENT: Final = "The log's index: every accepted record, as it came."

JOURNAL_COMMENTS: Final = {
    "topic": "Topic, without the installation's prefix.",
    "partition": "Partition of the topic.",
    "kafka_offset": "Offset in the partition.",
    "version": "Increasing within an aggregate: offset + 1 on telemetry topics, without holes on conditional ones.",
    "event_id": "UUID version 8: event time in ms, then a hash of the event's identity.",
    "event_type": "Name of the event.",
    "aggregate_id": "The record's key: the trace id.",
    "occurred_at": "When it happened, by the publisher's clock.",
    "log_time": "When the broker appended it.",
    "payload": "The record's value as it came: Confluent framing and Avro.",
}

VERDICTS_SELECT: Final = """
SELECT topic, partition, kafka_offset, 'accepted'::text AS verdict, NULL::text AS detail,
       event_id, event_type, aggregate_id, occurred_at, log_time
  FROM spanfold.journal
UNION ALL
SELECT topic, partition, kafka_offset, verdict, detail, event_id, event_type, aggregate_id, occurred_at, log_time
  FROM {schema}.rejected"""

VERDICTS_COMMENT: Final = "The verdict of every record that has been judged: accepted, or why not. For ever."

VERDICTS_COMMENTS: Final = {
    "topic": "Topic, without the installation's prefix.",
    "partition": "Partition of the topic.",
    "kafka_offset": "Offset in the partition.",
    "verdict": "accepted, malformed, misrouted, expired, future, duplicate or conflict.",
    "detail": "Why it was not accepted.",
    "event_id": "From the header; null if malformed.",
    "event_type": "From the header; null if malformed.",
    "aggregate_id": "The record's key; null if malformed.",
    "occurred_at": "From the header; null if malformed, or before 4714 BC, where Postgres' time begins.",
    "log_time": "When the broker appended it.",
}
