CREATE TABLE spanfold_core.erased (
    topic text NOT NULL REFERENCES spanfold_core.topics,
    partition smallint NOT NULL,
    aggregate_id text COLLATE "C" NOT NULL,
    kafka_offset bigint NOT NULL,
    log_time timestamptz NOT NULL,
    sequence bigint NOT NULL,
    PRIMARY KEY (topic, aggregate_id)
);
CREATE INDEX erased_sequence
    ON spanfold_core.erased (topic, partition, sequence);
CREATE INDEX erased_offset
    ON spanfold_core.erased (topic, partition, kafka_offset);
CREATE INDEX erased_trace_hex
    ON spanfold_core.erased USING hash (spanfold.trace_hex(aggregate_id));
COMMENT ON TABLE spanfold_core.erased IS
    'Erased traces. Later records of such a key are rejected; earlier ones are not folded again.';

CREATE VIEW spanfold.erased AS
SELECT topic,
       partition::integer AS partition,
       aggregate_id,
       kafka_offset,
       log_time
  FROM spanfold_core.erased;
COMMENT ON VIEW spanfold.erased IS 'Which traces were erased, and by which record. Nothing else is kept of them.';
COMMENT ON COLUMN spanfold.erased.topic IS 'Topic of the erased records, without the installation''s prefix.';
COMMENT ON COLUMN spanfold.erased.partition IS 'Partition of the topic.';
COMMENT ON COLUMN spanfold.erased.aggregate_id IS 'Key of the erased records: the trace id.';
COMMENT ON COLUMN spanfold.erased.kafka_offset IS
    'Offset of the TraceErased event. Later records of the key are rejected as erased.';
COMMENT ON COLUMN spanfold.erased.log_time IS 'When the broker appended the TraceErased event.';
