"""Snapshots of aggregates, and rejected records by their event id."""

from alembic import op

revision = "0005"
down_revision = "0004"

SNAPSHOTS = """
CREATE TABLE spanfold_core.snapshots (
    topic text NOT NULL REFERENCES spanfold_core.topics,
    aggregate_id text COLLATE "C" NOT NULL,
    fold_version integer NOT NULL,
    version bigint NOT NULL,
    state jsonb NOT NULL,
    taken_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (topic, aggregate_id, fold_version)
);
COMMENT ON TABLE spanfold_core.snapshots IS 'The latest state of an aggregate that each fold has made; all can be made again.';

-- of an append whose answer was lost only its event id is known; a duplicate's first verdict is in the journal
CREATE INDEX rejected_event_id ON spanfold_core.rejected USING hash (event_id) WHERE verdict <> 'duplicate';
"""


def upgrade() -> None:
    op.execute(SNAPSHOTS)
