CREATE TABLE spanfold_core.generations (
    projection text NOT NULL,
    generation integer NOT NULL,
    schema_name text NOT NULL UNIQUE,
    fold_version integer NOT NULL,
    state text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    suspended_at timestamptz,
    suspended_because text,
    PRIMARY KEY (projection, generation),
    CHECK (state IN ('loading', 'following', 'live', 'previous', 'as_of')),
    CHECK ((suspended_at IS NULL) = (suspended_because IS NULL))
);
CREATE UNIQUE INDEX one_live_generation
    ON spanfold_core.generations (projection)
 WHERE state = 'live';
CREATE UNIQUE INDEX one_next_generation
    ON spanfold_core.generations (projection)
 WHERE state IN ('loading', 'following');
COMMENT ON TABLE spanfold_core.generations IS
    'The generations of each projection. Each has its tables in a schema of its own; the public views read the live one.';

CREATE TABLE spanfold_core.view_definitions (
    view text PRIMARY KEY,
    definition text NOT NULL
);
COMMENT ON TABLE spanfold_core.view_definitions IS
    'The statements that created each public view. A view is replaced, which waits for its readers, only if they change.';
