CREATE TABLE spanfold_core.checkpoints (
    topic text NOT NULL REFERENCES spanfold_core.topics,
    partition integer NOT NULL,
    projection text NOT NULL,
    generation integer NOT NULL,
    next_offset bigint NOT NULL,
    log_time timestamptz,
    PRIMARY KEY (topic, partition, projection, generation)
) WITH (fillfactor = 50);
COMMENT ON TABLE spanfold_core.checkpoints IS
    'How far each generation has folded each partition. The journal''s own checkpoint is generation 0 of ''journal''.';

CREATE VIEW spanfold.checkpoints AS
SELECT c.projection,
       c.generation,
       c.topic,
       c.partition,
       c.next_offset,
       c.log_time,
       coalesce(g.state = 'live', c.projection = 'journal') AS live,
       g.suspended_at IS NOT NULL AS suspended
  FROM spanfold_core.checkpoints c
  LEFT JOIN spanfold_core.generations g USING (projection, generation);
COMMENT ON VIEW spanfold.checkpoints IS
    'How far each projection has folded each partition. A checkpoint commits together with the rows it stands for.';
COMMENT ON COLUMN spanfold.checkpoints.projection IS
    'Name of the projection; or ''journal'': records below are judged; or ''snapshots'': records below are in aggregate states.';
COMMENT ON COLUMN spanfold.checkpoints.generation IS
    'Generation of the projection. Always 0 for the journal; for snapshots, the fold version of the aggregate.';
COMMENT ON COLUMN spanfold.checkpoints.topic IS 'Topic, without the installation''s prefix.';
COMMENT ON COLUMN spanfold.checkpoints.partition IS 'Partition of the topic.';
COMMENT ON COLUMN spanfold.checkpoints.next_offset IS 'First offset that is not folded yet.';
COMMENT ON COLUMN spanfold.checkpoints.log_time IS
    'When the broker appended the last record that was folded; null before the first one.';
COMMENT ON COLUMN spanfold.checkpoints.live IS 'Whether the public views read this generation; true for the journal.';
COMMENT ON COLUMN spanfold.checkpoints.suspended IS
    'Whether workers leave this generation alone because folding it failed; see spanfold.projections.';
