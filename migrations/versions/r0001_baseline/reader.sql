DO $$
BEGIN
    -- roles belong to the whole server: another of its databases may have created this one, and its owner need not be
    -- one who may create roles
    IF to_regrole('spanfold_reader') IS NULL THEN
        CREATE ROLE spanfold_reader NOLOGIN;
    END IF;
EXCEPTION WHEN duplicate_object OR unique_violation THEN
    NULL;  -- in this very moment
END
$$;
GRANT USAGE ON SCHEMA spanfold TO spanfold_reader;
GRANT SELECT ON ALL TABLES IN SCHEMA spanfold TO spanfold_reader;
ALTER DEFAULT PRIVILEGES IN SCHEMA spanfold GRANT SELECT ON TABLES TO spanfold_reader;
