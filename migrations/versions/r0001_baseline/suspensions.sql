CREATE TABLE spanfold_core.parked_shares (
    topic text NOT NULL REFERENCES spanfold_core.topics,
    partition integer NOT NULL,
    records bigint NOT NULL,
    parked bigint NOT NULL,
    permitted_below bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (topic, partition)
) WITH (fillfactor = 50);
COMMENT ON TABLE spanfold_core.parked_shares IS
    'Of each partition''s recent records, how many were parked. Those below permitted_below may be, whatever their share.';

CREATE TABLE spanfold_core.log_gaps (
    topic text NOT NULL REFERENCES spanfold_core.topics,
    partition integer NOT NULL,
    projection text NOT NULL,
    generation integer NOT NULL,
    from_offset bigint NOT NULL,
    to_offset bigint NOT NULL,
    accepted_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (topic, partition, projection, generation, from_offset)
);
COMMENT ON TABLE spanfold_core.log_gaps IS
    'Records that the log lost before they were folded, as an operator has accepted it; spanfold.log_gaps shows them.';

CREATE VIEW spanfold.log_gaps AS
SELECT topic,
       partition,
       projection,
       generation,
       from_offset,
       to_offset,
       accepted_at
  FROM spanfold_core.log_gaps;
COMMENT ON VIEW spanfold.log_gaps IS
    'Offsets that the log lost before they were folded, and that `spanfold resume --accept-loss` went past.';
COMMENT ON COLUMN spanfold.log_gaps.topic IS 'Topic, without the installation''s prefix.';
COMMENT ON COLUMN spanfold.log_gaps.partition IS 'Partition of the topic.';
COMMENT ON COLUMN spanfold.log_gaps.projection IS 'What lacks them: a projection, ''journal'' (no verdicts) or ''snapshots''.';
COMMENT ON COLUMN spanfold.log_gaps.generation IS
    'Generation of the projection. Always 0 for the journal; for snapshots, the fold version of the aggregate.';
COMMENT ON COLUMN spanfold.log_gaps.from_offset IS 'First offset that was lost.';
COMMENT ON COLUMN spanfold.log_gaps.to_offset IS 'First offset after it that the log still had.';
COMMENT ON COLUMN spanfold.log_gaps.accepted_at IS 'When the loss was accepted.';

CREATE VIEW spanfold.suspensions AS
SELECT 'topic' AS kind,
       topic AS name,
       NULL::integer AS generation,
       suspended_at,
       suspended_because
  FROM spanfold_core.topics
 WHERE suspended_at IS NOT NULL
 UNION ALL
SELECT 'projection',
       projection,
       generation,
       suspended_at,
       suspended_because
  FROM spanfold_core.generations
 WHERE suspended_at IS NOT NULL;
COMMENT ON VIEW spanfold.suspensions IS
    'Topics whose verdicts stand still and generations that workers leave alone, until `spanfold resume`.';
COMMENT ON COLUMN spanfold.suspensions.kind IS 'topic or projection.';
COMMENT ON COLUMN spanfold.suspensions.name IS 'Name of the topic, without the installation''s prefix, or of the projection.';
COMMENT ON COLUMN spanfold.suspensions.generation IS 'Generation of the projection; null for a topic.';
COMMENT ON COLUMN spanfold.suspensions.suspended_at IS 'Since when.';
COMMENT ON COLUMN spanfold.suspensions.suspended_because IS 'What was wrong, and where.';
