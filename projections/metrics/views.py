"""What users see of the metrics projection, in schema `spanfold`."""

from typing import Final

from spanfold.projections.projection import View

_EXTREME: Final = """(
                       SELECT {extreme}(v.measured)
                         FROM {{schema}}.metric_points p
                        CROSS JOIN LATERAL (
                              SELECT CASE WHEN p.kind IN ('gauge', 'sum') THEN p.value
                                          WHEN p.temporality = 'delta' THEN p.{extreme}
                                     END) AS v (measured)
                        WHERE p.series_id = m.series_id
                          AND p.time >= m.minute
                          AND p.time < m.minute + interval '1 minute'
                          AND v.measured NOT IN ('NaN', 'Infinity', '-Infinity')
                   )"""
"""min or max of what a minute counts, from its points: unlike sums, extremes can't be taken back."""

_SERIES_COMMENTS: Final = {
    "series_id": "Id of the series, a hash of what identifies it: resource, scope, name and labels.",
    "name": "Name of the instrument, e.g. http.server.request.duration.",
    "unit": "UCUM unit, e.g. s or By; empty if there is none.",
    "labels": "Attributes that tell the series from others of its name.",
    "kind": "gauge, sum, histogram or exponential_histogram.",
    "temporality": "delta: since the point before; cumulative: since start_time; null for a gauge.",
    "service_name": "OpenTelemetry service.name.",
    "scope": "Name of the instrumentation scope; empty if there is none.",
}

_POINT_COMMENTS: Final = {
    "time": "When it was measured, by the publisher's clock.",
    "start_time": "Where the interval of a delta, or the cumulation, begins.",
    "value": "Of a gauge or a sum, exactly as published, also NaN and Infinity; null for a histogram: see count and sum.",
    "count": "Number of measurements in a histogram's point; null for a gauge or a sum.",
    "sum": "Sum of a histogram's measurements, exactly as published, also NaN and Infinity; null if not known.",
    "min": "Least of a histogram's measurements; null if not known.",
    "max": "Greatest of a histogram's measurements; null if not known.",
    "version": "Version of its event (offset + 1).",
}

VIEWS: Final = (
    View(
        name="metrics",
        comment="The latest point of each series: of two, the one with the later time.",
        select="""
            SELECT s.series_id,
                   s.name,
                   s.value,
                   s.unit,
                   s.time,
                   s.labels,
                   s.kind,
                   s.temporality,
                   s.monotonic,
                   s.service_name,
                   s.scope,
                   s.start_time,
                   s.count,
                   s.sum,
                   s.min,
                   s.max,
                   s.version
              FROM {schema}.metrics s""",
        comments={
            **_SERIES_COMMENTS,
            **_POINT_COMMENTS,
            "monotonic": "Whether a sum only grows.",
        },
    ),
    View(
        name="metric_points",
        comment="One row a point. Of several events for one series and time, the one with the greatest event id.",
        select="""
            SELECT p.series_id,
                   s.name,
                   p.kind,
                   p.time,
                   p.value,
                   p.count,
                   p.sum,
                   p.min,
                   p.max,
                   p.bounds,
                   p.bucket_counts,
                   s.labels,
                   s.service_name,
                   s.unit,
                   p.temporality,
                   s.scope,
                   p.start_time,
                   p.scale,
                   p.zero_count,
                   p.positive_offset,
                   p.positive_counts,
                   p.negative_offset,
                   p.negative_counts,
                   p.event_id,
                   p.version
              FROM {schema}.metric_points p
              JOIN {schema}.metrics s USING (series_id)""",
        comments={
            **_SERIES_COMMENTS,
            **_POINT_COMMENTS,
            "unit": "UCUM unit of the series' latest point; empty if there is none.",
            "bounds": "Upper bounds (inclusive) of a histogram's buckets but the last, which has none.",
            "bucket_counts": "Measurements in each bucket of a histogram: one more than bounds, or none.",
            "scale": "Of an exponential histogram: its base is 2^(2^-scale).",
            "zero_count": "Of an exponential histogram: measurements that count as zero.",
            "positive_offset": "Index of the first positive bucket of an exponential histogram; "
            "bucket i holds what is greater than base^i and at most base^(i+1).",
            "positive_counts": "Its positive buckets.",
            "negative_offset": "Index of the first negative bucket of an exponential histogram.",
            "negative_counts": "Its negative buckets.",
            "event_id": "UUID version 8: event time in ms, then a hash of the event's identity.",
        },
    ),
    View(
        name="metric_minutes",
        comment="What each series measured in each minute.",
        select=f"""
            SELECT m.series_id,
                   s.name,
                   m.minute,
                   m.points,
                   m.count,
                   m.sum,
                   {_EXTREME.format(extreme="min")} AS min,
                   {_EXTREME.format(extreme="max")} AS max,
                   m.buckets,
                   s.labels,
                   s.service_name,
                   s.unit,
                   s.kind
              FROM {{schema}}.metric_minutes m
              JOIN {{schema}}.metrics s USING (series_id)""",
        comments={
            **{
                name: _SERIES_COMMENTS[name] for name in ("series_id", "name", "labels", "service_name", "unit", "kind")
            },
            "minute": "The minute in which the points lie, by their time.",
            "points": "How many points there are, whatever they hold.",
            "count": "Of gauges and sums: the points with a finite value. Of delta histograms: their measurements. Cumulative "
            "histograms add nothing, for each holds all that came before it; take the difference of two points.",
            "sum": "Of gauges and sums: the sum of the finite values. Of delta histograms: the sum of their measurements, where "
            "it is known and finite. Cumulative histograms add nothing.",
            "min": "The least of what count counts, where it is known and finite, and spanfold.metric_points still has it.",
            "max": "The greatest of what count counts, where it is known and finite, and spanfold.metric_points still has it.",
            "buckets": "Measurements of delta histograms by the upper bound of their bucket, Infinity for the last; "
            "see spanfold.quantile and spanfold.histogram_sum. Null if there are none.",
        },
    ),
)
