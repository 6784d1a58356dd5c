CREATE TABLE spanfold_core.heads (
    topic text NOT NULL REFERENCES spanfold_core.topics,
    aggregate_id text COLLATE "C" NOT NULL,
    version bigint NOT NULL,
    PRIMARY KEY (topic, aggregate_id)
) WITH (fillfactor = 75);
COMMENT ON TABLE spanfold_core.heads IS
    'Conditional topics: the version of each aggregate. Back it up: once old log records are deleted, it can''t be rebuilt.';

CREATE TABLE spanfold_core.first_verdicts (
    topic text NOT NULL REFERENCES spanfold_core.topics,
    partition integer NOT NULL,
    event_id uuid NOT NULL,
    kafka_offset bigint NOT NULL,
    verdict text NOT NULL,
    version bigint,
    PRIMARY KEY (topic, partition, event_id)
);
COMMENT ON TABLE spanfold_core.first_verdicts IS
    'Conditional topics: the first verdict on each event id, which is final. Back it up, like heads.';
