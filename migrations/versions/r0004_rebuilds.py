"""Generations that are loaded beside the live one, and what there is to see of them."""

from alembic import op

revision = "0004"
down_revision = "0003"

STATES = """
ALTER TABLE spanfold_core.generations
    DROP CONSTRAINT generations_state_check,
    ADD CONSTRAINT generations_state_check CHECK (state IN ('loading', 'following', 'live', 'previous', 'as_of'));
CREATE UNIQUE INDEX one_next_generation ON spanfold_core.generations (projection) WHERE state IN ('loading', 'following');
"""

PROJECTIONS = """
CREATE VIEW spanfold.projections AS
SELECT g.projection, g.generation, g.state, g.fold_version, g.created_at,
       coalesce(c.behind, 0) AS behind, c.log_time, coalesce(s.bytes, 0) AS bytes, g.schema_name
  FROM spanfold_core.generations g
  LEFT JOIN LATERAL (
       SELECT sum(j.next_offset - c.next_offset)::bigint AS behind, min(c.log_time) AS log_time
         FROM spanfold_core.checkpoints c
         JOIN spanfold_core.checkpoints j
           ON (j.topic, j.partition, j.projection) = (c.topic, c.partition, 'journal')
        WHERE (c.projection, c.generation) = (g.projection, g.generation)) c ON true
  LEFT JOIN LATERAL (
       SELECT sum(pg_total_relation_size(t.oid))::bigint AS bytes
         FROM pg_class t
         JOIN pg_namespace n ON n.oid = t.relnamespace
        WHERE n.nspname = g.schema_name AND t.relkind IN ('r', 'p')) s ON true;
COMMENT ON VIEW spanfold.projections IS 'The generations of each projection: the live one is what the other views show.';
COMMENT ON COLUMN spanfold.projections.projection IS 'Name of the projection.';
COMMENT ON COLUMN spanfold.projections.generation IS 'Number of the generation; each has tables of its own.';
COMMENT ON COLUMN spanfold.projections.state IS
    'loading: being rebuilt; following: complete, about to be live; live; previous: what was live before; as_of: a past state.';
COMMENT ON COLUMN spanfold.projections.fold_version IS 'Version of the fold that makes its rows.';
COMMENT ON COLUMN spanfold.projections.created_at IS 'When its tables were created.';
COMMENT ON COLUMN spanfold.projections.behind IS 'Records that have been judged and that it has not folded.';
COMMENT ON COLUMN spanfold.projections.log_time IS 'The broker''s time of the last record folded by its slowest partition.';
COMMENT ON COLUMN spanfold.projections.bytes IS 'Size of its tables with their indexes.';
COMMENT ON COLUMN spanfold.projections.schema_name IS 'Schema that holds its tables.';
"""


def upgrade() -> None:
    op.execute(STATES)
    op.execute(PROJECTIONS)
