CREATE TABLE spanfold_core.topics (
    topic text PRIMARY KEY,
    broker_name text NOT NULL UNIQUE,
    broker_topic_id text NOT NULL,
    kind text NOT NULL,
    partitions integer NOT NULL,
    window_days integer NOT NULL,
    future_days integer NOT NULL,
    suspended_at timestamptz,
    suspended_because text,
    CHECK ((suspended_at IS NULL) = (suspended_because IS NULL))
);
COMMENT ON TABLE spanfold_core.topics IS
    'The topics that this database was folded from, with the rules that must not change during a topic''s life.';
