"""Parked records can be settled by facts in the log; conditional topics have heads and decisions."""

from alembic import op

revision = "0003"
down_revision = "0002"

PARKED = """
ALTER TABLE spanfold_core.parked
    ADD COLUMN settled_as text CHECK (settled_as IN ('retried', 'discarded')),
    ADD COLUMN settled_at bigint,
    ADD COLUMN last_tried_at bigint,
    ADD CHECK ((settled_as IS NULL) = (settled_at IS NULL));
CREATE INDEX parked_settled_at ON spanfold_core.parked (topic, partition, settled_at) WHERE settled_at IS NOT NULL;
CREATE INDEX parked_unsettled ON spanfold_core.parked (topic, partition, aggregate_id) WHERE settled_at IS NULL;

CREATE OR REPLACE VIEW spanfold.parked_records AS
SELECT topic, partition, kafka_offset, reason, detail, event_id, event_type, aggregate_id, occurred_at, log_time,
       key, headers, payload, coalesce(settled_as, 'parked') AS state, settled_at, last_tried_at
  FROM spanfold_core.parked;
COMMENT ON COLUMN spanfold.parked_records.state IS 'parked; retried: it has been folded; discarded: it has been given up.';
COMMENT ON COLUMN spanfold.parked_records.settled_at IS 'Offset of the fact that retried or discarded it, in the same partition.';
COMMENT ON COLUMN spanfold.parked_records.last_tried_at IS 'Offset of the last fact that retried it in vain.';
"""

HEADS = """
CREATE TABLE spanfold_core.heads (
    topic text NOT NULL REFERENCES spanfold_core.topics,
    aggregate_id text COLLATE "C" NOT NULL,
    version bigint NOT NULL,
    PRIMARY KEY (topic, aggregate_id)
) WITH (fillfactor = 75);
COMMENT ON TABLE spanfold_core.heads IS 'Conditional topics: the version of each aggregate. Once the log is compacted, truth.';

CREATE TABLE spanfold_core.decided (
    topic text NOT NULL REFERENCES spanfold_core.topics,
    partition integer NOT NULL,
    event_id uuid NOT NULL,
    kafka_offset bigint NOT NULL,
    verdict text NOT NULL,
    version bigint,
    PRIMARY KEY (topic, partition, event_id)
);
COMMENT ON TABLE spanfold_core.decided IS 'Conditional topics: the first verdict on each event id, which is final.';
"""


def upgrade() -> None:
    op.execute(PARKED)
    op.execute(HEADS)
