"""The public views of the metrics projection, in schema `spanfold`."""

from typing import Final

from spanfold.projections import resources
from spanfold.projections.projection import View

_EXTREME: Final = """(
                       SELECT {extreme}(v.measured)
                         FROM {{schema}}.metric_points p
                        CROSS JOIN LATERAL (
                              SELECT CASE WHEN p.kind = 'gauge' THEN p.value
                                          WHEN p.temporality = 'delta' AND p.kind <> 'sum' THEN p.{extreme}
                                     END) AS v (measured)
                        WHERE p.series_id = m.series_id
                          AND p.time >= m.minute
                          AND p.time < m.minute + interval '1 minute'
                          AND v.measured NOT IN ('NaN', 'Infinity', '-Infinity')
                   )"""
"""min or max of a minute, computed from its points: unlike a sum, an extreme can't be subtracted."""

_LAST: Final = """(
                       SELECT p.value
                         FROM {schema}.metric_points p
                        WHERE p.series_id = m.series_id
                          AND p.kind = 'gauge'
                          AND p.time >= m.minute
                          AND p.time < m.minute + interval '1 minute'
                          AND p.value NOT IN ('NaN', 'Infinity', '-Infinity')
                        ORDER BY p.time DESC
                        LIMIT 1
                   )"""
"""The last value of a gauge in a minute."""

_SERIES_COMMENTS: Final = {
    "series_id": "Id of the series: a hash of its resource, scope, name and labels.",
    "name": "Name of the instrument, e.g. http.server.request.duration.",
    "unit": "UCUM unit, e.g. s or By; empty if there is none.",
    "labels": "Attributes that distinguish the series from others with the same name.",
    "kind": "gauge, sum, histogram or exponential_histogram.",
    "temporality": "delta: measured since the previous point; cumulative: measured since start_time; null for a gauge.",
    "service_name": "OpenTelemetry service.name.",
}

_POINT_COMMENTS: Final = {
    "time": "When it was measured, by the publisher's clock.",
    "start_time": "Start of the interval that a delta or cumulative point covers.",
    "value": "Value of a gauge or a sum, exactly as published, including NaN and Infinity; null for a histogram.",
    "count": "Number of measurements in a histogram's point; null for a gauge or a sum.",
    "sum": "Sum of a histogram's measurements, exactly as published, including NaN and Infinity; null if unknown.",
    "min": "Least of a histogram's measurements; null if unknown.",
    "max": "Greatest of a histogram's measurements; null if unknown.",
    "version": "Version of its event (offset + 1).",
}

_OF_SERIES: Final = ("series_id", "name", "labels", "service_name", "unit", "kind", "temporality")

VIEWS: Final = (
    View(
        name="metrics",
        comment="One row per series, with its latest point.",
        select=f"""
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
                   s.start_time,
                   s.count,
                   s.sum,
                   s.min,
                   s.max,
                   s.version,
                   {resources.SHOWN}
              FROM {{schema}}.metrics s
              LEFT JOIN {{schema}}.resources r ON r.resource_id = s.resource_id""",
        comments={
            **_SERIES_COMMENTS,
            **_POINT_COMMENTS,
            "monotonic": "Whether a sum only increases.",
            **resources.SHOWN_COMMENTS,
        },
    ),
    View(
        name="metric_points",
        comment="One row per point. If several events give the same series and time, the one with the greatest event id counts.",
        select=f"""
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
                   p.start_time,
                   p.scale,
                   p.zero_count,
                   p.positive_offset,
                   p.positive_counts,
                   p.negative_offset,
                   p.negative_counts,
                   p.event_id,
                   p.version,
                   {resources.SHOWN}
              FROM {{schema}}.metric_points p
              JOIN {{schema}}.metrics s USING (series_id)
              LEFT JOIN {{schema}}.resources r ON r.resource_id = p.resource_id""",
        comments={
            **_SERIES_COMMENTS,
            **_POINT_COMMENTS,
            "unit": "UCUM unit of the series' latest point; empty if it has none.",
            "bounds": "Inclusive upper bounds of a histogram's buckets, except for the last bucket, which has none.",
            "bucket_counts": "Number of measurements in each bucket of a histogram: one more than bounds, or empty.",
            "scale": "Scale of an exponential histogram: its base is 2^(2^-scale).",
            "zero_count": "Number of measurements of an exponential histogram that count as zero.",
            "positive_offset": "Index of the first positive bucket of an exponential histogram; "
            "bucket i holds measurements above base^i and up to base^(i+1).",
            "positive_counts": "Number of measurements in each positive bucket.",
            "negative_offset": "Index of the first negative bucket of an exponential histogram.",
            "negative_counts": "Number of measurements in each negative bucket.",
            "event_id": "UUID version 8: the event's time in ms, then a hash of what identifies the event.",
            **resources.SHOWN_COMMENTS,
        },
    ),
    View(
        name="metric_minutes",
        comment="The measurements of each series by minute.",
        select=f"""
            SELECT m.series_id,
                   s.name,
                   m.minute,
                   m.points,
                   m.count,
                   CASE WHEN s.kind <> 'gauge' THEN m.sum END AS sum,
                   {_LAST} AS last,
                   {_EXTREME.format(extreme="min")} AS min,
                   {_EXTREME.format(extreme="max")} AS max,
                   CASE WHEN s.kind = 'gauge' THEN m.sum / nullif(m.count, 0) END AS mean,
                   m.buckets,
                   s.labels,
                   s.service_name,
                   s.unit,
                   s.kind,
                   s.temporality,
                   s.monotonic
              FROM {{schema}}.metric_minutes m
              JOIN {{schema}}.metrics s USING (series_id)""",
        comments={
            **{name: _SERIES_COMMENTS[name] for name in _OF_SERIES},
            "monotonic": "Whether a sum only grows.",
            "minute": "Start of the minute in which the points were measured.",
            "points": "Number of points of any kind.",
            "count": "Gauges and sums: number of points with a finite value. Histograms: number of measurements.",
            "sum": "Sum of the minute; cumulative points count by the difference to the point before. Null for gauges.",
            "last": "Gauges: the last finite value, if spanfold.metric_points still has it.",
            "min": "Least finite value of a gauge or min of a delta histogram, if spanfold.metric_points still has it.",
            "max": "Greatest finite value of a gauge or max of a delta histogram, if spanfold.metric_points still has it.",
            "mean": "Gauges: the mean of the finite values.",
            "buckets": "Number of a histogram's measurements by the upper bound of their bucket, Infinity for the last; "
            "for spanfold.quantile and spanfold.histogram_sum. Null if there are none.",
        },
    ),
    View(
        name="metric_overflows",
        comment="Series that stand for the ones beyond an SDK's limit on the number of series: their labels are lost.",
        select="""
            SELECT s.series_id,
                   s.name,
                   s.service_name,
                   coalesce(r.scope_name, '') AS scope_name,
                   s.time
              FROM {schema}.metrics s
              LEFT JOIN {schema}.resources r ON r.resource_id = s.resource_id
             WHERE s.labels @> '{{"otel.metric.overflow": true}}'""",
        comments={
            **{name: _SERIES_COMMENTS[name] for name in ("series_id", "name", "service_name")},
            "scope_name": resources.SHOWN_COMMENTS["scope_name"],
            "time": "Time of its latest point.",
        },
    ),
)
