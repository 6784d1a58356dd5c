CREATE TABLE spanfold_core.parked (
    topic text NOT NULL REFERENCES spanfold_core.topics,
    partition integer NOT NULL,
    kafka_offset bigint NOT NULL,
    reason text NOT NULL,
    detail text NOT NULL,
    event_id uuid,
    event_type text NOT NULL,
    aggregate_id text,
    occurred_at timestamptz NOT NULL,
    log_time timestamptz NOT NULL,
    key bytea,
    headers jsonb,
    payload bytea,
    value_bytes bigint,
    value_sha256 bytea,
    settled_as text CHECK (settled_as IN ('retried', 'discarded', 'erased')),
    settled_offset bigint,
    last_tried_offset bigint,
    PRIMARY KEY (topic, partition, kafka_offset),
    CHECK ((settled_as IS NULL) = (settled_offset IS NULL)),
    -- set together, while only the value's beginning is kept here
    CHECK ((value_bytes IS NULL) = (value_sha256 IS NULL))
);
CREATE INDEX parked_settled_offset
    ON spanfold_core.parked (topic, partition, settled_offset)
 WHERE settled_offset IS NOT NULL;
CREATE INDEX parked_unsettled
    ON spanfold_core.parked (topic, partition, aggregate_id)
 WHERE settled_offset IS NULL;
-- the log is needed from the first of these on
CREATE INDEX parked_in_log
    ON spanfold_core.parked (topic, partition, kafka_offset)
 WHERE value_bytes IS NOT NULL AND settled_offset IS NULL;
-- an erasure looks up everything that was kept of a key
CREATE INDEX parked_aggregate
    ON spanfold_core.parked
 USING hash (aggregate_id);
COMMENT ON TABLE spanfold_core.parked IS
    'Accepted records that could not be folded, settled ones too; spanfold.parked_records shows them.';

CREATE VIEW spanfold.parked_records AS
SELECT topic,
       partition,
       kafka_offset,
       reason,
       detail,
       event_id,
       event_type,
       aggregate_id,
       occurred_at,
       log_time,
       key,
       headers,
       payload,
       value_bytes,
       value_sha256,
       coalesce(settled_as, 'parked') AS state,
       settled_offset,
       last_tried_offset
  FROM spanfold_core.parked;
COMMENT ON VIEW spanfold.parked_records IS
    'Accepted records that could not be folded (dead letters), with their bytes, position and reason.';
COMMENT ON COLUMN spanfold.parked_records.topic IS 'Topic, without the installation''s prefix.';
COMMENT ON COLUMN spanfold.parked_records.partition IS 'Partition of the topic.';
COMMENT ON COLUMN spanfold.parked_records.kafka_offset IS 'Offset in the partition.';
COMMENT ON COLUMN spanfold.parked_records.reason IS
    'Why the last attempt to fold it failed; `spanfold parked --help` explains each reason.';
COMMENT ON COLUMN spanfold.parked_records.detail IS 'What exactly was wrong.';
COMMENT ON COLUMN spanfold.parked_records.event_id IS 'From the record''s header; null if its trace was erased.';
COMMENT ON COLUMN spanfold.parked_records.event_type IS 'From the record''s header.';
COMMENT ON COLUMN spanfold.parked_records.aggregate_id IS 'The record''s key as text; null if its trace was erased.';
COMMENT ON COLUMN spanfold.parked_records.occurred_at IS 'When the event happened, from the record''s header.';
COMMENT ON COLUMN spanfold.parked_records.log_time IS 'When the broker appended the record.';
COMMENT ON COLUMN spanfold.parked_records.key IS 'The record''s key, byte for byte; null if its trace was erased.';
COMMENT ON COLUMN spanfold.parked_records.headers IS
    'The record''s headers as [name, value] pairs, where a value that is not text is {"hex": "…"}; null if its trace was erased.';
COMMENT ON COLUMN spanfold.parked_records.payload IS
    'The record''s value, byte for byte; its first KiB while value_bytes is set; null if it was null or its trace was erased.';
COMMENT ON COLUMN spanfold.parked_records.value_bytes IS
    'Size of a value that is too large to keep here: the log has it, and is kept from it on. Null when payload is the whole value.';
COMMENT ON COLUMN spanfold.parked_records.value_sha256 IS 'SHA-256 of that value; null when payload is the whole value.';
COMMENT ON COLUMN spanfold.parked_records.state IS
    'parked: waiting to be settled; retried: folded after all; discarded: given up; erased: gone with its trace.';
COMMENT ON COLUMN spanfold.parked_records.settled_offset IS
    'Offset, in the same partition, of the event that retried or discarded it or erased its trace; null while it is parked.';
COMMENT ON COLUMN spanfold.parked_records.last_tried_offset IS
    'Offset, in the same partition, of the last retry that failed; null if none did.';
