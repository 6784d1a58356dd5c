"""Parked records whose values are too large to keep: which ones the log still has to hold, and their bytes once they are fetched.

Bytes are stored in a transaction of their own, before the fact that retries the record is appended. From then on the row is like
any other parked one, and every fold reads the same bytes from it.
"""

import hashlib
from typing import Any, Final

from psycopg import Connection, Rollback, sql

from spanfold.language.positions import NextOffsets
from spanfold.language.topics import Topic
from spanfold.projections.commit.arbiter import arbiter_of
from spanfold.projections.commit.journal import CORE


def first_in_log(connection: Connection[Any]) -> NextOffsets:
    """By topic and partition: the first parked record whose bytes only the log has. The log is needed from there on."""
    return {(topic, partition): offset for topic, partition, offset in connection.execute(FIRST_IN_LOG)}


def store_value(connection: Connection[Any], topic: Topic, partition: int, offset: int, value: bytes) -> bool:
    """Keep the whole value of a parked record of which only the beginning was kept. False, and nothing is changed, when no such
    record is parked there: it was settled, or has other bytes.
    """
    place = {"topic": topic.name, "partition": partition, "offset": offset, "value": value}
    place["sha256"] = hashlib.sha256(value).digest()
    journal = arbiter_of(topic).table
    with connection.transaction() as transaction:
        if journal is not None:
            # the journal first, as an erasure does
            statement = sql.SQL(JOURNAL_VALUE).format(journal=sql.Identifier(CORE, journal.name))
            connection.execute(statement, place)
        stored = connection.execute(PARKED_VALUE, place).rowcount == 1
        if not stored:
            raise Rollback(transaction)
    return stored


FIRST_IN_LOG: Final = f"""
SELECT topic, partition, min(kafka_offset) FROM {CORE}.parked
 WHERE value_bytes IS NOT NULL AND settled_offset IS NULL
 GROUP BY topic, partition
"""

JOURNAL_VALUE: Final = f"""
UPDATE {{journal}} j SET payload = %(value)s
  FROM {CORE}.parked p
 WHERE (p.topic, p.partition, p.kafka_offset) = (%(topic)s, %(partition)s, %(offset)s) AND p.settled_offset IS NULL
   AND j.aggregate_id = p.aggregate_id AND j.partition = p.partition AND j.kafka_offset = p.kafka_offset
"""

PARKED_VALUE: Final = f"""
UPDATE {CORE}.parked SET payload = %(value)s, value_bytes = NULL, value_sha256 = NULL
 WHERE (topic, partition, kafka_offset) = (%(topic)s, %(partition)s, %(offset)s)
   AND value_sha256 = %(sha256)s AND settled_offset IS NULL
"""
