"""The ledger: topics, generations, checkpoints, rejected and parked records, and the role that may only read."""

from alembic import op

revision = "0001"
down_revision = None

TABLES = """
CREATE SCHEMA spanfold;
COMMENT ON SCHEMA spanfold IS 'spanfold: what can be asked. Views only; spanfold_reader may read them.';

CREATE SCHEMA spanfold_core;
COMMENT ON SCHEMA spanfold_core IS 'spanfold: journal, checkpoints and verdicts. Written by the workers alone.';

CREATE TABLE spanfold_core.topics (
    topic text PRIMARY KEY,
    broker_name text NOT NULL UNIQUE,
    broker_topic_id text NOT NULL,
    kind text NOT NULL,
    partitions integer NOT NULL,
    window_days integer NOT NULL,
    future_days integer NOT NULL
);

CREATE TABLE spanfold_core.generations (
    projection text NOT NULL,
    generation integer NOT NULL,
    schema_name text NOT NULL UNIQUE,
    fold_version integer NOT NULL,
    state text NOT NULL CHECK (state IN ('loading', 'live', 'previous')),
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (projection, generation)
);
CREATE UNIQUE INDEX one_live_generation ON spanfold_core.generations (projection) WHERE state = 'live';

-- what each public view was made from: a view is replaced, which waits for its readers, only if that changed
CREATE TABLE spanfold_core.shown (
    view text PRIMARY KEY,
    made_from text NOT NULL
);

-- the journal's own checkpoint is generation 0 of 'journal'
CREATE TABLE spanfold_core.checkpoints (
    topic text NOT NULL REFERENCES spanfold_core.topics,
    partition integer NOT NULL,
    projection text NOT NULL,
    generation integer NOT NULL,
    next_offset bigint NOT NULL,
    log_time timestamptz,
    PRIMARY KEY (topic, partition, projection, generation)
) WITH (fillfactor = 50);

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
    PRIMARY KEY (topic, partition, kafka_offset)
);

CREATE TABLE spanfold_core.parked (
    topic text NOT NULL REFERENCES spanfold_core.topics,
    partition integer NOT NULL,
    kafka_offset bigint NOT NULL,
    reason text NOT NULL,
    detail text NOT NULL,
    event_id uuid NOT NULL,
    event_type text NOT NULL,
    aggregate_id text NOT NULL,
    occurred_at timestamptz NOT NULL,
    log_time timestamptz NOT NULL,
    key bytea NOT NULL,
    headers jsonb NOT NULL,
    payload bytea,
    PRIMARY KEY (topic, partition, kafka_offset)
);
"""

VIEWS = """
CREATE VIEW spanfold.checkpoints AS
SELECT c.projection, c.generation, c.topic, c.partition, c.next_offset, c.log_time,
       coalesce(g.state = 'live', true) AS live
  FROM spanfold_core.checkpoints c
  LEFT JOIN spanfold_core.generations g USING (projection, generation);
COMMENT ON VIEW spanfold.checkpoints IS 'How far each projection has folded each partition; committed with its rows.';
COMMENT ON COLUMN spanfold.checkpoints.projection IS 'Name of the projection, or journal.';
COMMENT ON COLUMN spanfold.checkpoints.generation IS 'Which of its generations; the journal has only 0.';
COMMENT ON COLUMN spanfold.checkpoints.topic IS 'Topic, without the installation''s prefix.';
COMMENT ON COLUMN spanfold.checkpoints.partition IS 'Partition of the topic.';
COMMENT ON COLUMN spanfold.checkpoints.next_offset IS 'The first offset that is not folded yet.';
COMMENT ON COLUMN spanfold.checkpoints.log_time IS 'The broker''s time of the last folded record; null before the first.';
COMMENT ON COLUMN spanfold.checkpoints.live IS 'Whether the public views read this generation.';

CREATE VIEW spanfold.parked_records AS
SELECT topic, partition, kafka_offset, reason, detail, event_id, event_type, aggregate_id, occurred_at, log_time,
       key, headers, payload
  FROM spanfold_core.parked;
COMMENT ON VIEW spanfold.parked_records IS 'Accepted records that could not be folded, with their bytes, position and reason.';
COMMENT ON COLUMN spanfold.parked_records.topic IS 'Topic, without the installation''s prefix.';
COMMENT ON COLUMN spanfold.parked_records.partition IS 'Partition of the topic.';
COMMENT ON COLUMN spanfold.parked_records.kafka_offset IS 'Offset in the partition.';
COMMENT ON COLUMN spanfold.parked_records.reason IS 'unreadable, unknown_schema, contradiction, invalid or refused.';
COMMENT ON COLUMN spanfold.parked_records.detail IS 'What exactly was wrong.';
COMMENT ON COLUMN spanfold.parked_records.event_id IS 'From the header.';
COMMENT ON COLUMN spanfold.parked_records.event_type IS 'From the header.';
COMMENT ON COLUMN spanfold.parked_records.aggregate_id IS 'The record''s key as text.';
COMMENT ON COLUMN spanfold.parked_records.occurred_at IS 'From the header.';
COMMENT ON COLUMN spanfold.parked_records.log_time IS 'When the broker appended it.';
COMMENT ON COLUMN spanfold.parked_records.key IS 'The record''s key as it came.';
COMMENT ON COLUMN spanfold.parked_records.headers IS 'Its headers: pairs of name and text, or {"hex": …} where it is not text.';
COMMENT ON COLUMN spanfold.parked_records.payload IS 'The record''s value as it came; null if it was null.';
"""

ROLE = """
DO $$
BEGIN
    CREATE ROLE spanfold_reader NOLOGIN;
EXCEPTION WHEN duplicate_object OR unique_violation THEN
    NULL;  -- roles belong to the whole server: another database of it has made this one
END
$$;
GRANT USAGE ON SCHEMA spanfold TO spanfold_reader;
GRANT SELECT ON ALL TABLES IN SCHEMA spanfold TO spanfold_reader;
ALTER DEFAULT PRIVILEGES IN SCHEMA spanfold GRANT SELECT ON TABLES TO spanfold_reader;
"""


def upgrade() -> None:
    for statements in (TABLES, VIEWS, ROLE):
        op.execute(statements)
