"""The public views: what they are made from, and that they only ever grow."""

from collections.abc import Iterable
from typing import Final

from sqlalchemy import Connection, text

from spanfold.language.errors import Misconfigured
from spanfold.language.topics import Topic
from spanfold.projections.commit.arbiter import arbiter_of
from spanfold.projections.commit.journal import CORE
from spanfold.projections.projection import Projection, View

PUBLIC: Final = "spanfold"
READER: Final = "spanfold_reader"


def show_journals(connection: Connection, topics: Iterable[Topic]) -> None:
    """(Re)create the views over all journals."""
    journals = [(topic.name, arbiter_of(topic)) for topic in topics]
    select = "\nUNION ALL\n".join(
        journal.select.format(topic=name, table=journal.table)
        for name, journal in journals
        if journal.table is not None
    )
    _create_view(connection, View("journal", select, JOURNAL_COMMENT, JOURNAL_COMMENTS), CORE)
    _create_view(connection, View("verdicts", VERDICTS_SELECT, VERDICTS_COMMENT, VERDICTS_COMMENTS), CORE)


def refuse_shrinking_views(connection: Connection, projection: Projection, schema: str) -> None:
    """Misconfigured when a public view of the projection has columns that this generation's lacks or has otherwise: views
    grow at the end, and nothing else.
    """
    for view in projection.views:
        before = [tuple(row) for row in connection.execute(text(VIEW_COLUMNS), {"view": f"{PUBLIC}.{view.name}"})]
        described = connection.exec_driver_sql(f"SELECT * FROM ({view.select.format(schema=schema)}) AS v LIMIT 0")
        after = [(name, kind) for name, kind, *_ in described.cursor.description]
        if after[: len(before)] != before:
            raise Misconfigured(
                f"{PUBLIC}.{view.name} has the columns {', '.join(name for name, _ in before)}; the new one has "
                f"{', '.join(name for name, _ in after)}. A view only grows at its end, because people's queries and views "
                "build on it: give another shape another name. Nothing was changed."
            )


def show(connection: Connection, projection: Projection, schema: str) -> None:
    """Point the projection's public views at this generation."""
    for view in projection.views:
        _create_view(connection, view, schema)


def show_in(connection: Connection, projection: Projection, schema: str, into: str) -> None:
    """Create the same views over this generation in the schema `into`, which the reader's role may then read."""
    for view in projection.views:
        for statement in _view_statements(view, schema, into):
            connection.exec_driver_sql(statement)
        connection.exec_driver_sql(f'GRANT SELECT ON "{into}"."{view.name}" TO {READER}')


def _create_view(connection: Connection, view: View, schema: str) -> None:
    """Create or replace the view, unless it was made from the same before: replacing it would wait for its readers."""
    statements = _view_statements(view, schema)
    defined = {"view": view.name, "definition": ";\n".join(statements)}
    known = text(f"SELECT FROM {CORE}.view_definitions WHERE view = :view AND definition = :definition")
    if connection.execute(known, defined).first() is not None:
        return
    for statement in statements:
        # exec_driver_sql: view texts have colons of their own
        connection.exec_driver_sql(statement)
    connection.execute(text(REMEMBER_VIEW), defined)


def _view_statements(view: View, schema: str, into: str = PUBLIC) -> list[str]:
    def quoted(words: str) -> str:
        return "'" + words.format().replace("'", "''") + "'"

    name = f'"{into}"."{view.name}"'
    return [
        f"CREATE OR REPLACE VIEW {name} AS {view.select.format(schema=schema)}",
        f"COMMENT ON VIEW {name} IS {quoted(view.comment)}",
        *(f"COMMENT ON COLUMN {name}.{column} IS {quoted(words)}" for column, words in view.comments.items()),
    ]


REMEMBER_VIEW: Final = f"""
INSERT INTO {CORE}.view_definitions (view, definition) VALUES (:view, :definition)
ON CONFLICT (view) DO UPDATE SET definition = excluded.definition
"""

VIEW_COLUMNS: Final = """
SELECT attname, atttypid::bigint FROM pg_attribute
 WHERE attrelid = to_regclass(:view) AND attnum > 0 AND NOT attisdropped
 ORDER BY attnum
"""

JOURNAL_COMMENT: Final = (
    "Every accepted record of the topics that have a journal (metrics have none), as it was published. "
    "spanfold.journal_retention shows from where on it is complete."
)

JOURNAL_COMMENTS: Final = {
    "topic": "Topic, without the installation's prefix.",
    "partition": "Partition of the topic.",
    "kafka_offset": "Offset in the partition.",
    "version": "Grows with each record of an aggregate: offset + 1 on telemetry topics, 1, 2, 3, … on conditional topics.",
    "event_id": "UUID version 8: the event's time in milliseconds, then a hash of what identifies the event.",
    "event_type": "Type of the event, such as TraceCreated.",
    "aggregate_id": "The record's key: the id of the event's aggregate, such as the trace id.",
    "occurred_at": "When the event happened, by the publisher's clock.",
    "log_time": "When the broker appended the record.",
    "payload": "The record's value, byte for byte: Confluent's framing, then Avro.",
}

VERDICTS_SELECT: Final = """
SELECT topic, partition, kafka_offset, 'accepted'::text AS verdict, NULL::text AS detail,
       event_id, event_type, aggregate_id, occurred_at, log_time
  FROM spanfold.journal
UNION ALL
SELECT topic, partition, kafka_offset, verdict, detail, event_id, event_type, aggregate_id, occurred_at, log_time
  FROM {schema}.rejected"""

VERDICTS_COMMENT: Final = (
    "The final verdict on each record. Rejected records stay for ever, accepted ones as long as the journal has them."
)

VERDICTS_COMMENTS: Final = {
    "topic": "Topic, without the installation's prefix.",
    "partition": "Partition of the topic.",
    "kafka_offset": "Offset in the partition.",
    "verdict": "accepted, malformed, misrouted, erased, expired, future, duplicate or conflict.",
    "detail": "Why the record was rejected; null if it was accepted.",
    "event_id": "From the record's header; null if the record is malformed or its trace was erased.",
    "event_type": "From the record's header; null if the record is malformed.",
    "aggregate_id": "The record's key; null if the record is malformed or its trace was erased.",
    "occurred_at": "From the record's header; null if the record is malformed, or before 4714 BC, where Postgres' time begins.",
    "log_time": "When the broker appended the record.",
}
