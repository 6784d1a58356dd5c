"""What `spanfold compact` has let go of: days of journals, and old rows of tables."""

from alembic import op

revision = "0008"
down_revision = "0007"

TABLES = """
CREATE TABLE spanfold_core.let_go (
    topic text NOT NULL REFERENCES spanfold_core.topics,
    partition integer NOT NULL,
    journal_before bigint NOT NULL,
    days_before date NOT NULL,
    PRIMARY KEY (topic, partition)
);
COMMENT ON TABLE spanfold_core.let_go IS
    'Days of telemetry journals that are let go of, and the offsets below which records of theirs lay. It never goes back.';

CREATE TABLE spanfold_core.horizons (
    projection text NOT NULL,
    table_name text NOT NULL,
    rows_before timestamptz NOT NULL,
    PRIMARY KEY (projection, table_name)
);
COMMENT ON TABLE spanfold_core.horizons IS
    'Rows of a projection''s table that lie before this are let go of, in every generation. It never goes back.';
"""

VIEWS = """
CREATE VIEW spanfold.let_go AS
SELECT topic, partition, journal_before, days_before FROM spanfold_core.let_go;
COMMENT ON VIEW spanfold.let_go IS 'What is no longer in spanfold.journal, by partition; those without a row have all.';
COMMENT ON COLUMN spanfold.let_go.topic IS 'Topic, without the installation''s prefix.';
COMMENT ON COLUMN spanfold.let_go.partition IS 'Partition of the topic.';
COMMENT ON COLUMN spanfold.let_go.journal_before IS 'Records below this offset may be gone; none at or above it is.';
COMMENT ON COLUMN spanfold.let_go.days_before IS 'Events that happened before this day (UTC) are gone.';

CREATE VIEW spanfold.horizons AS
SELECT projection, table_name, rows_before FROM spanfold_core.horizons;
COMMENT ON VIEW spanfold.horizons IS 'Tables of which old rows are let go of.';
COMMENT ON COLUMN spanfold.horizons.projection IS 'Name of the projection.';
COMMENT ON COLUMN spanfold.horizons.table_name IS 'The table, and the view of that name.';
COMMENT ON COLUMN spanfold.horizons.rows_before IS
    'Rows before this time are gone, by end_time (and the time of its event), minute, time or occurred_at.';
"""


def upgrade() -> None:
    op.execute(TABLES)
    op.execute(VIEWS)
