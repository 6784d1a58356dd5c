CREATE TABLE spanfold_core.saved_snapshots (
    topic text NOT NULL REFERENCES spanfold_core.topics,
    aggregate_id text COLLATE "C" NOT NULL,
    fold_version integer NOT NULL,
    version bigint NOT NULL,
    state jsonb NOT NULL,
    taken_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (topic, aggregate_id, fold_version)
);
COMMENT ON TABLE spanfold_core.saved_snapshots IS
    'Snapshots that applications saved through the event store. All of them can be made again.';

CREATE TABLE spanfold_core.states (
    topic text NOT NULL REFERENCES spanfold_core.topics,
    partition smallint NOT NULL,
    aggregate_id text COLLATE "C" NOT NULL,
    fold_version integer NOT NULL,
    version bigint NOT NULL,
    records integer NOT NULL,
    first_log_time timestamptz NOT NULL,
    due_at timestamptz NOT NULL,
    state bytea NOT NULL,
    PRIMARY KEY (topic, aggregate_id, fold_version)
);
CREATE INDEX states_due
    ON spanfold_core.states (topic, partition, fold_version, due_at);
COMMENT ON TABLE spanfold_core.states IS
    'Aggregates with records that are in no snapshot yet: their state at the checkpoint of ''snapshots''. Together with the '
    'snapshots of all other aggregates they stand for the log up to there.';

CREATE SEQUENCE spanfold_core.snapshot_sequence CACHE 1;

CREATE TABLE spanfold_core.snapshots (
    topic text NOT NULL REFERENCES spanfold_core.topics,
    partition smallint NOT NULL,
    aggregate_id text COLLATE "C" NOT NULL,
    fold_version integer NOT NULL,
    version bigint NOT NULL,
    next_offset bigint NOT NULL,
    sequence bigint NOT NULL,
    taken_at timestamptz NOT NULL DEFAULT now(),
    state bytea NOT NULL,
    PRIMARY KEY (topic, aggregate_id, fold_version)
);
CREATE INDEX snapshots_sequence
    ON spanfold_core.snapshots (topic, partition, sequence);
COMMENT ON TABLE spanfold_core.snapshots IS
    'The latest snapshot of each aggregate. Back it up: once old log records are deleted, it can''t be rebuilt.';

CREATE TABLE spanfold_core.snapshot_feed (
    topic text NOT NULL REFERENCES spanfold_core.topics,
    partition integer NOT NULL,
    sequence bigint NOT NULL,
    PRIMARY KEY (topic, partition)
);
COMMENT ON TABLE spanfold_core.snapshot_feed IS
    'The sequence number up to which changes of snapshots are in the compacted topic.';

CREATE VIEW spanfold.snapshots AS
SELECT topic,
       partition::integer AS partition,
       aggregate_id,
       fold_version,
       version,
       next_offset,
       taken_at,
       ('x' || encode(substring(state FROM 2 FOR 4), 'hex'))::bit(32)::integer AS schema_id,
       state
  FROM spanfold_core.snapshots;
COMMENT ON VIEW spanfold.snapshots IS 'The latest snapshot of each aggregate, taken by the snapshot worker.';
COMMENT ON COLUMN spanfold.snapshots.topic IS 'Topic of the aggregate''s events, without the installation''s prefix.';
COMMENT ON COLUMN spanfold.snapshots.partition IS 'Partition of its events.';
COMMENT ON COLUMN spanfold.snapshots.aggregate_id IS 'Id of the aggregate, which is the key of its records.';
COMMENT ON COLUMN spanfold.snapshots.fold_version IS 'Version of the fold that made the state.';
COMMENT ON COLUMN spanfold.snapshots.version IS 'Greatest version among the records that the state contains.';
COMMENT ON COLUMN spanfold.snapshots.next_offset IS
    'The state contains the aggregate''s accepted records below this offset.';
COMMENT ON COLUMN spanfold.snapshots.taken_at IS 'When it was taken, by Postgres'' clock.';
COMMENT ON COLUMN spanfold.snapshots.schema_id IS 'Id of the state''s Avro schema.';
COMMENT ON COLUMN spanfold.snapshots.state IS
    'The state in Confluent''s wire format: a zero byte, the schema id in four bytes, then Avro.';
