"""Values that were too large to keep: fetched from the log, and stored beside what else is known of their parked records."""

from collections.abc import Sequence
from typing import Any, Final

import psycopg

from spanfold.language.errors import Misconfigured, NotFound
from spanfold.language.progress import ProgressListener
from spanfold.language.topics import TopicOnBroker, topic_named
from spanfold.operations.installation import Installation
from spanfold.operations.parked.records import ParkedRecord
from spanfold.operations.postgres_errors import writes_translated
from spanfold.postgres.connections import connect
from spanfold.projections.commit.cut import CutValue, Value
from spanfold.projections.commit.parked_bytes import store_value
from spanfold.stream_processors.rebuild.log_reader import LogReader, OffsetRange

_AFTERWARDS: Final = "No retry was appended; run the same command again"


def store_values(installation: Installation, records: Sequence[ParkedRecord], progress: ProgressListener) -> None:
    """Have Postgres keep the whole value of each record of which it has the beginning only. What was stored stays when another
    one fails. NotFound when the log has no such record any more, Misconfigured when it has another one there, LogUnavailable,
    StoreUnavailable.
    """
    if not (in_log := [record for record in records if record.value_bytes is not None]):
        return
    progress.step("fetching values from the log")
    with (
        writes_translated(_AFTERWARDS),
        LogReader(installation.settings) as reader,
        connect(installation.dsn, "spanfold parked") as connection,
    ):
        for done, record in enumerate(in_log, 1):
            _store_value(reader, connection, record, installation.settings.topic_prefix)
            progress.advanced(done, len(in_log), "values")


def _store_value(reader: LogReader, connection: psycopg.Connection[Any], record: ParkedRecord, prefix: str) -> None:
    topic = topic_named(record.topic)
    if topic is None:
        raise Misconfigured(f"{record.position}: the topic is not installed here; install its package")
    on_broker = TopicOnBroker(topic, topic.on_broker(prefix), "", record.partition + 1)
    value = _value_at(reader, on_broker, record)
    if isinstance(value, CutValue):
        raise Misconfigured(f"{record.position}: the value is larger than SPANFOLD_MAX_VALUE_BYTES; raise it and retry")
    if value is None or not store_value(connection, topic, record.partition, record.kafka_offset, value):
        raise Misconfigured(
            f"{record.position}: the log holds another record there than the one that was parked, or the record was settled "
            "meanwhile. Check that SPANFOLD_KAFKA_BOOTSTRAP names the Kafka that the tables were folded from"
        )


def _value_at(reader: LogReader, topic: TopicOnBroker, record: ParkedRecord) -> Value:
    offset = record.kafka_offset
    first, end = reader.watermarks(topic.name, record.partition)
    if first <= offset < end:
        for batch in reader.batches([OffsetRange(topic, record.partition, offset, offset + 1)]):
            for value in batch.values:
                return value
    raise NotFound(
        f"{record.position}: the log holds offsets {first} to {end} and not this record, so its bytes are gone; "
        "give it up with `spanfold parked discard`"
    )
