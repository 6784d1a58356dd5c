"""What the snapshot worker keeps: states of aggregates that are not in a snapshot yet, snapshots, how far the compacted topic
has been fed with them, and who has been erased.
"""

from alembic import op

revision = "0006"
down_revision = "0005"

TABLES = """
ALTER TABLE spanfold_core.snapshots RENAME TO saved_snapshots;
ALTER INDEX spanfold_core.snapshots_pkey RENAME TO saved_snapshots_pkey;
COMMENT ON TABLE spanfold_core.saved_snapshots IS
    'What applications have saved through the event store; all can be made again.';

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
CREATE INDEX states_due ON spanfold_core.states (topic, partition, fold_version, due_at);
COMMENT ON TABLE spanfold_core.states IS
    'Aggregates with records that are in no snapshot: their state at the checkpoint of ''snapshots''. With the snapshots of all '
    'others it stands for the log up to there.';

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
CREATE INDEX snapshots_sequence ON spanfold_core.snapshots (topic, partition, sequence);
COMMENT ON TABLE spanfold_core.snapshots IS
    'The latest snapshot of each aggregate. Once the log is compacted, truth: it belongs in backups.';

CREATE TABLE spanfold_core.fed (
    topic text NOT NULL REFERENCES spanfold_core.topics,
    partition integer NOT NULL,
    sequence bigint NOT NULL,
    PRIMARY KEY (topic, partition)
);
COMMENT ON TABLE spanfold_core.fed IS 'Up to which change of snapshots the compacted topic has them.';

CREATE TABLE spanfold_core.erased (
    topic text NOT NULL REFERENCES spanfold_core.topics,
    partition smallint NOT NULL,
    aggregate_id text COLLATE "C" NOT NULL,
    kafka_offset bigint NOT NULL,
    log_time timestamptz NOT NULL,
    sequence bigint NOT NULL,
    PRIMARY KEY (topic, aggregate_id)
);
CREATE INDEX erased_sequence ON spanfold_core.erased (topic, partition, sequence);
COMMENT ON TABLE spanfold_core.erased IS
    'Who has been erased, and by which record: later ones of the key are rejected, earlier ones are not folded again.';
"""

VIEWS = """
CREATE OR REPLACE VIEW spanfold.checkpoints AS
SELECT c.projection, c.generation, c.topic, c.partition, c.next_offset, c.log_time,
       coalesce(g.state = 'live', c.projection = 'journal') AS live
  FROM spanfold_core.checkpoints c
  LEFT JOIN spanfold_core.generations g USING (projection, generation);
COMMENT ON COLUMN spanfold.checkpoints.projection IS
    'Name of the projection; journal, up to which records are judged; or snapshots, up to which states are folded.';
COMMENT ON COLUMN spanfold.checkpoints.generation IS
    'Which of its generations; the journal has only 0, snapshots have the fold versions of aggregates.';

CREATE VIEW spanfold.snapshots AS
SELECT topic, partition::integer AS partition, aggregate_id, fold_version, version, next_offset, taken_at,
       ('x' || encode(substring(state FROM 2 FOR 4), 'hex'))::bit(32)::integer AS schema_id, state
  FROM spanfold_core.snapshots;
COMMENT ON VIEW spanfold.snapshots IS 'The latest snapshot of each aggregate, as the snapshot worker has taken it.';
COMMENT ON COLUMN spanfold.snapshots.topic IS 'Topic of the aggregate''s events, without the installation''s prefix.';
COMMENT ON COLUMN spanfold.snapshots.partition IS 'Partition of its events.';
COMMENT ON COLUMN spanfold.snapshots.aggregate_id IS 'Id of the aggregate, the key of its records.';
COMMENT ON COLUMN spanfold.snapshots.fold_version IS 'Version of the fold that made the state.';
COMMENT ON COLUMN spanfold.snapshots.version IS 'The greatest version among the records that are in it.';
COMMENT ON COLUMN spanfold.snapshots.next_offset IS 'It holds the aggregate''s accepted records below this offset.';
COMMENT ON COLUMN spanfold.snapshots.taken_at IS 'When it was taken, by the clock of Postgres.';
COMMENT ON COLUMN spanfold.snapshots.schema_id IS 'Id of the Avro schema of the state.';
COMMENT ON COLUMN spanfold.snapshots.state IS 'The state in Confluent''s wire format: 0, the schema id, Avro.';
"""


def upgrade() -> None:
    op.execute(TABLES)
    op.execute(VIEWS)
