CREATE FUNCTION spanfold.trace_hex(trace_id text) RETURNS text
IMMUTABLE STRICT PARALLEL SAFE LANGUAGE sql
RETURN CASE WHEN trace_id ~ '^[0-9a-f]{32}$' THEN trace_id ELSE md5(trace_id) END;
COMMENT ON FUNCTION spanfold.trace_hex IS
    'A trace id as 32 hex digits, for tools that know no other: itself if it is that already, else its MD5.';
