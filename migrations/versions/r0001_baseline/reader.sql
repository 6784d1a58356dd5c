DO $$
BEGIN
    CREATE ROLE spanfold_reader NOLOGIN;
EXCEPTION WHEN duplicate_object OR unique_violation THEN
    NULL;  -- roles belong to the whole server: another of its databases has created this one
END
$$;
GRANT USAGE ON SCHEMA spanfold TO spanfold_reader;
GRANT SELECT ON ALL TABLES IN SCHEMA spanfold TO spanfold_reader;
ALTER DEFAULT PRIVILEGES IN SCHEMA spanfold GRANT SELECT ON TABLES TO spanfold_reader;
