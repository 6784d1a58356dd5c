"""Records of erased traces: what is kept of them names nobody, and nothing can be retried."""

from alembic import op

revision = "0007"
down_revision = "0006"

TABLES = """
ALTER TABLE spanfold_core.parked
    ALTER COLUMN event_id DROP NOT NULL,
    ALTER COLUMN aggregate_id DROP NOT NULL,
    ALTER COLUMN key DROP NOT NULL,
    ALTER COLUMN headers DROP NOT NULL,
    DROP CONSTRAINT parked_settled_as_check,
    ADD CONSTRAINT parked_settled_as_check CHECK (settled_as IN ('retried', 'discarded', 'erased'));

-- an erasure looks for all that was kept of a key; of a malformed record only its bytes are known
CREATE INDEX parked_aggregate ON spanfold_core.parked USING hash (aggregate_id);
CREATE INDEX rejected_aggregate ON spanfold_core.rejected USING hash (aggregate_id);
CREATE INDEX rejected_key ON spanfold_core.rejected USING hash (key) WHERE aggregate_id IS NULL;
CREATE INDEX erased_offset ON spanfold_core.erased (topic, partition, kafka_offset);
"""

VIEWS = """
COMMENT ON COLUMN spanfold.parked_records.event_id IS 'From the header; null if its trace was erased.';
COMMENT ON COLUMN spanfold.parked_records.aggregate_id IS 'The record''s key as text; null if its trace was erased.';
COMMENT ON COLUMN spanfold.parked_records.key IS 'The record''s key as it came; null if its trace was erased.';
COMMENT ON COLUMN spanfold.parked_records.headers IS
    'Its headers: pairs of name and text, or {"hex": …} where it is not text; null if its trace was erased.';
COMMENT ON COLUMN spanfold.parked_records.payload IS
    'The record''s value as it came; null if it was null, or its trace was erased.';
COMMENT ON COLUMN spanfold.parked_records.state IS
    'parked; retried: it has been folded; discarded: it has been given up; erased: its trace has been.';
COMMENT ON COLUMN spanfold.parked_records.settled_at IS
    'Offset of the fact that retried or discarded it, or erased its trace, in the same partition.';

CREATE VIEW spanfold.erased AS
SELECT topic, partition::integer AS partition, aggregate_id, kafka_offset, log_time
  FROM spanfold_core.erased;
COMMENT ON VIEW spanfold.erased IS 'Who has been erased, and by which record. Nothing else of them is kept.';
COMMENT ON COLUMN spanfold.erased.topic IS 'Topic of the erased records, without the installation''s prefix.';
COMMENT ON COLUMN spanfold.erased.partition IS 'Partition of the topic.';
COMMENT ON COLUMN spanfold.erased.aggregate_id IS 'Key of the erased records: the trace id.';
COMMENT ON COLUMN spanfold.erased.kafka_offset IS 'Offset of TraceErased. Later records of the key are rejected as erased.';
COMMENT ON COLUMN spanfold.erased.log_time IS 'When the broker appended TraceErased.';
"""


def upgrade() -> None:
    op.execute(TABLES)
    op.execute(VIEWS)
