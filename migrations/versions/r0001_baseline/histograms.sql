-- spanfold/projections/traces/duration_histogram.py is its inverse
CREATE FUNCTION spanfold_core.bucket_upper_ms(bucket smallint) RETURNS numeric
IMMUTABLE STRICT PARALLEL SAFE LANGUAGE sql
RETURN trim_scale(
    CASE WHEN bucket < 32
         THEN bucket::numeric
         ELSE (bucket - ((bucket >> 4) - 1) * 16 + 1) * power(2::numeric, (bucket >> 4) - 1) - 1
    END / 1000
);
COMMENT ON FUNCTION spanfold_core.bucket_upper_ms IS
    'The greatest duration, in milliseconds, in a bucket of a spanfold.histogram.';

CREATE FUNCTION spanfold.quantile(histogram jsonb, q double precision) RETURNS double precision
IMMUTABLE STRICT PARALLEL SAFE LANGUAGE sql
BEGIN ATOMIC
    SELECT bound
      FROM (SELECT key::double precision AS bound,
                   sum(value::numeric) OVER (ORDER BY key::double precision) AS so_far,
                   sum(value::numeric) OVER () AS total
              FROM jsonb_each_text(histogram)) AS buckets
     WHERE so_far >= q::numeric * total
       AND so_far > 0
     ORDER BY bound
     LIMIT 1;
END;
COMMENT ON FUNCTION spanfold.quantile(jsonb, double precision) IS
    'The q-quantile (0 to 1) of a histogram {upper bound: count}: the upper bound of the bucket that holds it, or null if the '
    'histogram is empty.';

CREATE FUNCTION spanfold.histogram_add(one jsonb, other jsonb) RETURNS jsonb
IMMUTABLE PARALLEL SAFE LANGUAGE sql
BEGIN ATOMIC
    SELECT coalesce(jsonb_object_agg(key, total), '{}')
      FROM (SELECT key,
                   sum(value::numeric) AS total
              FROM (SELECT key, value FROM jsonb_each_text(one)
                     UNION ALL
                    SELECT key, value FROM jsonb_each_text(other)) AS entries
             GROUP BY key) AS totals;
END;
COMMENT ON FUNCTION spanfold.histogram_add IS 'The sum of two histograms {upper bound: count}.';

CREATE AGGREGATE spanfold.histogram_sum(jsonb) (
    sfunc = spanfold.histogram_add,
    stype = jsonb,
    initcond = '{}',
    combinefunc = spanfold.histogram_add,
    parallel = safe
);
COMMENT ON AGGREGATE spanfold.histogram_sum(jsonb) IS
    'The sum of histograms: spanfold.quantile(spanfold.histogram_sum(buckets), 0.99).';
