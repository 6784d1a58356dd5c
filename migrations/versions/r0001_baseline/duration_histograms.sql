CREATE TYPE spanfold.bucket_counts AS (
    buckets smallint[],
    counts bigint[]
);
COMMENT ON TYPE spanfold.bucket_counts IS 'Counts of durations by bucket, sorted; only those that are not zero.';

-- a view makes one of the rows of all partitions: adding them up waits until somebody asks for a quantile
CREATE TYPE spanfold.histogram AS (
    parts spanfold.bucket_counts[]
);
COMMENT ON TYPE spanfold.histogram IS
    'Durations by bucket, the sum of its parts: see spanfold.p99, spanfold.quantile, spanfold.merge and '
    'spanfold.histogram_bounds.';

CREATE FUNCTION spanfold_core.add_counts(
    one spanfold.bucket_counts, other spanfold.bucket_counts, sign integer
) RETURNS spanfold.bucket_counts
IMMUTABLE PARALLEL SAFE LANGUAGE sql
BEGIN ATOMIC
    SELECT ROW(coalesce(array_agg(bucket ORDER BY bucket), '{}'),
               coalesce(array_agg(total ORDER BY bucket), '{}'))::spanfold.bucket_counts
      FROM (SELECT bucket,
                   sum(count)::bigint AS total
              FROM (SELECT bucket, count FROM unnest((one).buckets, (one).counts) AS ones (bucket, count)
                     UNION ALL
                    SELECT bucket, sign * count FROM unnest((other).buckets, (other).counts) AS others (bucket, count)
                   ) AS both_of_them
             GROUP BY bucket
            HAVING sum(count) <> 0) AS totals;
END;
COMMENT ON FUNCTION spanfold_core.add_counts IS 'one + sign * other.';

CREATE FUNCTION spanfold_core.totals(histograms spanfold.histogram[])
RETURNS TABLE (bucket smallint, total bigint)
IMMUTABLE PARALLEL SAFE LANGUAGE sql
BEGIN ATOMIC
    SELECT entries.bucket, sum(entries.count)::bigint
      FROM unnest(histograms) AS h,
           unnest(h.parts) AS part,
           unnest(part.buckets, part.counts) AS entries (bucket, count)
     GROUP BY entries.bucket;
END;

CREATE FUNCTION spanfold.histogram_bounds(histogram spanfold.histogram) RETURNS jsonb
IMMUTABLE STRICT PARALLEL SAFE LANGUAGE sql
BEGIN ATOMIC
    SELECT coalesce(jsonb_object_agg(spanfold_core.bucket_upper_ms(bucket), total), '{}')
      FROM spanfold_core.totals(ARRAY[histogram]);
END;
COMMENT ON FUNCTION spanfold.histogram_bounds IS
    'The counts of a histogram by the upper bound of their bucket in milliseconds: {upper bound: count}.';

CREATE FUNCTION spanfold_core.merged(histograms spanfold.histogram[]) RETURNS spanfold.histogram
IMMUTABLE PARALLEL SAFE LANGUAGE sql
BEGIN ATOMIC
    SELECT ROW(coalesce(array_agg(ROW(buckets, counts)::spanfold.bucket_counts), '{}'))::spanfold.histogram
      FROM (SELECT array_agg(bucket ORDER BY bucket) AS buckets,
                   array_agg(total ORDER BY bucket) AS counts
              FROM spanfold_core.totals(histograms)) AS summed
     WHERE buckets IS NOT NULL;
END;

CREATE FUNCTION spanfold_core.quantile_of(histograms spanfold.histogram[], q double precision) RETURNS double precision
IMMUTABLE PARALLEL SAFE LANGUAGE sql
BEGIN ATOMIC
    SELECT spanfold_core.bucket_upper_ms(bucket)::double precision
      FROM (SELECT bucket,
                   sum(total) OVER (ORDER BY bucket) AS so_far,
                   sum(total) OVER () AS calls
              FROM spanfold_core.totals(histograms)) AS running
     WHERE so_far >= q::numeric * calls
       AND so_far > 0
     ORDER BY bucket
     LIMIT 1;
END;

CREATE FUNCTION spanfold_core.p50_of(histograms spanfold.histogram[]) RETURNS double precision
IMMUTABLE PARALLEL SAFE LANGUAGE sql
RETURN spanfold_core.quantile_of(histograms, 0.5);

CREATE FUNCTION spanfold_core.p90_of(histograms spanfold.histogram[]) RETURNS double precision
IMMUTABLE PARALLEL SAFE LANGUAGE sql
RETURN spanfold_core.quantile_of(histograms, 0.9);

CREATE FUNCTION spanfold_core.p95_of(histograms spanfold.histogram[]) RETURNS double precision
IMMUTABLE PARALLEL SAFE LANGUAGE sql
RETURN spanfold_core.quantile_of(histograms, 0.95);

CREATE FUNCTION spanfold_core.p99_of(histograms spanfold.histogram[]) RETURNS double precision
IMMUTABLE PARALLEL SAFE LANGUAGE sql
RETURN spanfold_core.quantile_of(histograms, 0.99);

-- array_append: in an aggregate PostgreSQL appends to the state in place, so that the state is never copied
CREATE AGGREGATE spanfold.merge(spanfold.histogram) (
    sfunc = array_append, stype = spanfold.histogram[], initcond = '{}', finalfunc = spanfold_core.merged
);
COMMENT ON AGGREGATE spanfold.merge(spanfold.histogram) IS 'The sum of histograms: their counts by bucket.';

CREATE AGGREGATE spanfold.p50(spanfold.histogram) (
    sfunc = array_append, stype = spanfold.histogram[], initcond = '{}', finalfunc = spanfold_core.p50_of
);
COMMENT ON AGGREGATE spanfold.p50(spanfold.histogram) IS 'The median in milliseconds, at most 1/16 above the true value.';

CREATE AGGREGATE spanfold.p90(spanfold.histogram) (
    sfunc = array_append, stype = spanfold.histogram[], initcond = '{}', finalfunc = spanfold_core.p90_of
);
COMMENT ON AGGREGATE spanfold.p90(spanfold.histogram) IS
    'The 0.9-quantile in milliseconds, at most 1/16 above the true value.';

CREATE AGGREGATE spanfold.p95(spanfold.histogram) (
    sfunc = array_append, stype = spanfold.histogram[], initcond = '{}', finalfunc = spanfold_core.p95_of
);
COMMENT ON AGGREGATE spanfold.p95(spanfold.histogram) IS
    'The 0.95-quantile in milliseconds, at most 1/16 above the true value.';

CREATE AGGREGATE spanfold.p99(spanfold.histogram) (
    sfunc = array_append, stype = spanfold.histogram[], initcond = '{}', finalfunc = spanfold_core.p99_of
);
COMMENT ON AGGREGATE spanfold.p99(spanfold.histogram) IS
    'The 0.99-quantile in milliseconds, at most 1/16 above the true value.';

-- An aggregate's final function does not see its arguments. So the first element of the state holds the quantile, in units of
-- 1e-15, and no buckets. PL/pgSQL appends to the state in place, too.
CREATE FUNCTION spanfold_core.append_for_quantile(
    state spanfold.histogram[], q double precision, histogram spanfold.histogram
) RETURNS spanfold.histogram[]
IMMUTABLE PARALLEL SAFE LANGUAGE plpgsql AS $$
BEGIN
    IF cardinality(state) = 0 THEN
        state := array_append(
            state, ROW(ARRAY[ROW('{}', ARRAY[round(q * 1e15)::bigint])::spanfold.bucket_counts])::spanfold.histogram
        );
    END IF;
    state := array_append(state, histogram);
    RETURN state;
END
$$;

CREATE FUNCTION spanfold_core.quantile_of_state(state spanfold.histogram[]) RETURNS double precision
IMMUTABLE PARALLEL SAFE LANGUAGE sql
RETURN spanfold_core.quantile_of(state[2:], (state[1]).parts[1].counts[1] / 1e15::double precision);

CREATE AGGREGATE spanfold.quantile(double precision, spanfold.histogram) (
    sfunc = spanfold_core.append_for_quantile,
    stype = spanfold.histogram[],
    initcond = '{}',
    finalfunc = spanfold_core.quantile_of_state
);
COMMENT ON AGGREGATE spanfold.quantile(double precision, spanfold.histogram) IS
    'The quantile (0 to 1) in milliseconds, at most 1/16 above the true value: spanfold.quantile(0.99, duration_histogram).';
