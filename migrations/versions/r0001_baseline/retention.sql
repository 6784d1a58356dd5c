CREATE TABLE spanfold_core.journal_retention (
    topic text NOT NULL REFERENCES spanfold_core.topics,
    partition integer NOT NULL,
    complete_from_offset bigint NOT NULL,
    kept_from_day date NOT NULL,
    PRIMARY KEY (topic, partition)
);
COMMENT ON TABLE spanfold_core.journal_retention IS
    'From where on the journals of telemetry topics still have every record. Neither column ever goes back.';

CREATE VIEW spanfold.journal_retention AS
SELECT topic,
       partition,
       complete_from_offset,
       kept_from_day
  FROM spanfold_core.journal_retention;
COMMENT ON VIEW spanfold.journal_retention IS
    'What is no longer in spanfold.journal, by partition. Of a partition without a row nothing was deleted.';
COMMENT ON COLUMN spanfold.journal_retention.topic IS 'Topic, without the installation''s prefix.';
COMMENT ON COLUMN spanfold.journal_retention.partition IS 'Partition of the topic.';
COMMENT ON COLUMN spanfold.journal_retention.complete_from_offset IS
    'Records below this offset may be gone; from this offset on none is.';
COMMENT ON COLUMN spanfold.journal_retention.kept_from_day IS
    'Events that occurred before this day (UTC) are gone; events from this day on are kept.';

CREATE TABLE spanfold_core.retention_horizons (
    projection text NOT NULL,
    table_name text NOT NULL,
    kept_from timestamptz NOT NULL,
    PRIMARY KEY (projection, table_name)
);
COMMENT ON TABLE spanfold_core.retention_horizons IS
    'The time from which on a projection''s table keeps its rows, in every generation. It never goes back.';

CREATE VIEW spanfold.retention_horizons AS
SELECT projection,
       table_name,
       kept_from
  FROM spanfold_core.retention_horizons;
COMMENT ON VIEW spanfold.retention_horizons IS
    'Tables whose old rows were deleted. A table without a row here has all of its rows.';
COMMENT ON COLUMN spanfold.retention_horizons.projection IS 'Name of the projection.';
COMMENT ON COLUMN spanfold.retention_horizons.table_name IS 'Name of the table, and of the view that reads it.';
COMMENT ON COLUMN spanfold.retention_horizons.kept_from IS
    'Rows from before this time are gone. A row''s time is its end_time (spans: or occurred_at, if later), minute, time or '
    'occurred_at.';
