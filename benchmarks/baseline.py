"""The baseline: the same events into plain tables with nothing but speed in mind.

confluent-kafka consumes, fastavro decodes, one dictionary folds, COPY and one merge write, while the next batch is decoded.
Spans are only copied, into a table without an index. No journal, no rollups, no verdicts, no fences, no parked records: what
it would cost not to be exact.
"""

import sys
from concurrent.futures import Future, ThreadPoolExecutor
from io import BytesIO
from typing import Any

import psycopg
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition
from fastavro import parse_schema, schemaless_reader

from spanfold.schemas.catalogue import committed
from spanfold.schemas.codec import plain

BATCH = 20_000
PG_EPOCH_US = 946_684_800_000_000
KINDS = ["text", "text", "text", "int8", "bytea", "text", "int8"]
SPAN_KINDS = ["text"] * 8 + ["int8"] * 2 + ["bytea"] * 3

TABLES = """
CREATE TABLE traces (
    trace_id text COLLATE "C" PRIMARY KEY, service_name text, operation_name text, start_time timestamptz, tags jsonb,
    status text, end_time timestamptz
) WITH (fillfactor = 75);
CREATE TABLE spans (
    trace_id text, span_id text, parent_span_id text, service_name text, operation_name text, kind text, status text,
    status_message text, start_time timestamptz, end_time timestamptz, tags jsonb, events jsonb, links jsonb
);
CREATE TABLE progress (events bigint);
INSERT INTO progress VALUES (0);
"""

MERGE = """
INSERT INTO traces AS t SELECT * FROM incoming
ON CONFLICT (trace_id) DO UPDATE SET
    service_name = coalesce(excluded.service_name, t.service_name),
    operation_name = coalesce(excluded.operation_name, t.operation_name),
    start_time = coalesce(excluded.start_time, t.start_time),
    tags = coalesce(excluded.tags, t.tags),
    status = coalesce(excluded.status, t.status),
    end_time = coalesce(excluded.end_time, t.end_time)
"""

Rows = dict[str, list[Any]]
Spans = list[tuple[Any, ...]]


def fold(values: list[bytes], readers: dict[int, tuple[str, Any]]) -> tuple[Rows, Spans]:
    rows: Rows = {}
    spans: Spans = []
    for value in values:
        body = BytesIO(value)
        body.seek(5)
        event_type, schema = readers[int.from_bytes(value[1:5], "big")]
        event: Any = schemaless_reader(body, schema, None)
        if event_type == "SpanRecorded":
            spans.append(_span(event))
            continue
        row = rows.get(event["aggregate_id"])
        if row is None:
            row = rows[event["aggregate_id"]] = [None] * 6
        if event_type == "TraceCreated":
            row[0], row[1] = event["service_name"], event["operation_name"]
            row[2], row[3] = event["start_time"] - PG_EPOCH_US, _jsonb(event["tags"])
        else:
            row[4], row[5] = event["status"], event["end_time"] - PG_EPOCH_US
    return rows, spans


def _span(event: Any) -> tuple[Any, ...]:
    return (
        event["aggregate_id"], event["span_id"], event["parent_span_id"], event["service_name"], event["operation_name"],
        event["kind"], event["status"], event["status_message"],
        event["start_time"] - PG_EPOCH_US, event["end_time"] - PG_EPOCH_US,
        _jsonb(event["tags"]), _jsonb(event["events"]), _jsonb(event["links"]),
    )  # fmt: skip


def _jsonb(document: str) -> bytes:
    return b"\x01" + document.encode()


def write(connection: psycopg.Connection[Any], rows: Rows, spans: Spans, count: int) -> None:
    with connection.transaction(), connection.cursor() as cursor:
        cursor.execute("CREATE TEMPORARY TABLE IF NOT EXISTS incoming (LIKE traces) ON COMMIT DELETE ROWS")
        with cursor.copy("COPY incoming FROM STDIN (FORMAT BINARY)") as copy:
            copy.set_types(KINDS)
            for trace_id, row in rows.items():
                copy.write_row((trace_id, *row))
        cursor.execute(MERGE)
        if spans:
            with cursor.copy("COPY spans FROM STDIN (FORMAT BINARY)") as copy:
                copy.set_types(SPAN_KINDS)
                for span in spans:
                    copy.write_row(span)
        cursor.execute("UPDATE progress SET events = events + %s", (count,))


def main(bootstrap: str, topic: str, partitions: int, events: int, dsn: str) -> None:
    readers = {entry.id: (entry.event_type, parse_schema(plain(entry.load()))) for entry in committed()}
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "baseline", "enable.auto.commit": False})
    consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in range(partitions)])
    with psycopg.connect(dsn, autocommit=True) as connection, ThreadPoolExecutor(1) as executor:
        connection.execute(TABLES)
        writing: Future[None] | None = None
        while events > 0:
            values = [value for message in consumer.consume(BATCH, 1.0) if (value := message.value()) is not None]
            rows, spans = fold(values, readers)
            if writing is not None:
                writing.result()
            writing = executor.submit(write, connection, rows, spans, len(values))
            events -= len(values)
        if writing is not None:
            writing.result()
    consumer.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5])
