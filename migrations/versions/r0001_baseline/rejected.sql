CREATE TABLE spanfold_core.rejected (
    topic text NOT NULL REFERENCES spanfold_core.topics,
    partition integer NOT NULL,
    kafka_offset bigint NOT NULL,
    verdict text NOT NULL,
    detail text NOT NULL,
    event_id uuid,
    event_type text,
    aggregate_id text,
    occurred_at timestamptz,
    log_time timestamptz NOT NULL,
    key bytea,
    headers jsonb,
    payload bytea,
    value_bytes bigint,
    value_sha256 bytea,
    PRIMARY KEY (topic, partition, kafka_offset)
);
-- an append whose answer was lost is known by its event id alone; a duplicate's first verdict is in the journal
CREATE INDEX rejected_event_id
    ON spanfold_core.rejected
 USING hash (event_id)
 WHERE verdict <> 'duplicate';
-- an erasure looks up everything that was kept of a key; a malformed record has nothing but its bytes
CREATE INDEX rejected_aggregate
    ON spanfold_core.rejected
 USING hash (aggregate_id);
CREATE INDEX rejected_key
    ON spanfold_core.rejected
 USING hash (key)
 WHERE aggregate_id IS NULL;
COMMENT ON TABLE spanfold_core.rejected IS 'Records that were rejected, with their verdict; spanfold.verdicts shows them.';
