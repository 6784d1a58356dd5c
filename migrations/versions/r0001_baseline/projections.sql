CREATE VIEW spanfold.projections AS
SELECT g.projection,
       g.generation,
       g.state,
       g.fold_version,
       g.created_at,
       coalesce(c.behind, 0) AS behind,
       c.log_time,
       coalesce(s.bytes, 0) AS bytes,
       g.schema_name,
       g.suspended_at,
       g.suspended_because
  FROM spanfold_core.generations g
  LEFT JOIN LATERAL (
       SELECT sum(j.next_offset - c.next_offset)::bigint AS behind,
              min(c.log_time) AS log_time
         FROM spanfold_core.checkpoints c
         JOIN spanfold_core.checkpoints j
           ON (j.topic, j.partition, j.projection) = (c.topic, c.partition, 'journal')
        WHERE (c.projection, c.generation) = (g.projection, g.generation)) c ON true
  LEFT JOIN LATERAL (
       SELECT sum(pg_total_relation_size(t.oid))::bigint AS bytes
         FROM pg_class t
         JOIN pg_namespace n ON n.oid = t.relnamespace
        WHERE n.nspname = g.schema_name
          AND t.relkind IN ('r', 'p')) s ON true;
COMMENT ON VIEW spanfold.projections IS 'The generations of each projection. The other views read the live ones.';
COMMENT ON COLUMN spanfold.projections.projection IS 'Name of the projection.';
COMMENT ON COLUMN spanfold.projections.generation IS 'Number of the generation; each has its own tables.';
COMMENT ON COLUMN spanfold.projections.state IS
    'loading: being rebuilt or verified; following: complete, about to go live; live: what the views read; '
    'previous: was live before, kept for rollback; as_of: the tables at a past moment.';
COMMENT ON COLUMN spanfold.projections.fold_version IS 'Version of the fold that writes its rows.';
COMMENT ON COLUMN spanfold.projections.created_at IS 'When its tables were created.';
COMMENT ON COLUMN spanfold.projections.behind IS 'Records that are judged but not folded into it yet, over all partitions.';
COMMENT ON COLUMN spanfold.projections.log_time IS
    'When the broker appended the last record that was folded, in the partition that is furthest behind.';
COMMENT ON COLUMN spanfold.projections.bytes IS 'Size of its tables with their indexes, in bytes.';
COMMENT ON COLUMN spanfold.projections.schema_name IS 'Schema that holds its tables.';
COMMENT ON COLUMN spanfold.projections.suspended_at IS
    'Since when workers have left it alone, because folding it failed; null while they fold it. `spanfold resume` goes on.';
COMMENT ON COLUMN spanfold.projections.suspended_because IS 'The error that suspended it, and the record that caused it.';
