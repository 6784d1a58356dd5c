"""Points of OpenTelemetry's metrics → MetricUpdated."""

import math
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from opentelemetry.sdk.metrics.export import (
    ExponentialHistogram,
    ExponentialHistogramDataPoint,
    Gauge,
    HistogramDataPoint,
    Metric,
    MetricsData,
    NumberDataPoint,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from spanfold.language.events import MetricUpdated, Tags, series_id
from spanfold.producers.attributes import tags_of, text_of
from spanfold.producers.resources import NS_PER_US, Origin, Origins

DataPoint = NumberDataPoint | HistogramDataPoint | ExponentialHistogramDataPoint

_ORIGINS: Final = Origins()
_INT64: Final = range(-(1 << 63), 1 << 63)


class Point(NamedTuple):
    """A point, and all that says of which series it is."""

    resource: Resource
    scope: InstrumentationScope
    metric: Metric
    point: DataPoint


def points_of(data: MetricsData) -> Iterator[Point]:
    """Every point of the export."""
    for of_resource in data.resource_metrics:
        for of_scope in of_resource.scope_metrics:
            for metric in of_scope.metrics:
                for point in metric.data.data_points:
                    yield Point(of_resource.resource, of_scope.scope, metric, point)


def events_of(measured: Point) -> Iterator[MetricUpdated]:
    """The point as an event."""
    metric, point, origin = measured.metric, measured.point, _ORIGINS.of(measured.resource, measured.scope)
    name, labels = text_of(metric.name), tags_of(point.attributes)
    yield MetricUpdated(
        aggregate_id=_series(origin, name, labels),
        occurred_at=point.time_unix_nano // NS_PER_US,
        name=name,
        unit=text_of(metric.unit or ""),
        start_time=point.start_time_unix_nano // NS_PER_US if point.start_time_unix_nano else None,
        labels=labels,
        **origin,
        **_kind(metric),
        **_measured(point),
    )


def _series(origin: Origin, name: str, labels: Tags) -> str:
    return series_id(
        origin["resource"], origin["scope_name"], name, labels, origin["scope_version"], origin["scope_attributes"]
    )


def _kind(metric: Metric) -> dict[str, Any]:
    data = metric.data
    if isinstance(data, Gauge):
        return {"kind": "gauge"}
    temporality = data.aggregation_temporality.name.lower()
    if isinstance(data, Sum):
        return {"kind": "sum", "temporality": temporality, "monotonic": data.is_monotonic}
    exponential = isinstance(data, ExponentialHistogram)
    return {"kind": "exponential_histogram" if exponential else "histogram", "temporality": temporality}


def _measured(point: DataPoint) -> dict[str, Any]:
    if isinstance(point, NumberDataPoint):
        return {"value": _number(point.value)}
    if isinstance(point, HistogramDataPoint):
        return _distribution(point) | {
            "bounds": tuple(map(float, point.explicit_bounds)),
            "bucket_counts": tuple(point.bucket_counts),
        }
    return _distribution(point) | {
        "scale": point.scale,
        "zero_count": point.zero_count,
        "positive_offset": point.positive.offset,
        "positive_counts": tuple(point.positive.bucket_counts),
        "negative_offset": point.negative.offset,
        "negative_counts": tuple(point.negative.bucket_counts),
    }


def _distribution(point: HistogramDataPoint | ExponentialHistogramDataPoint) -> dict[str, Any]:
    # the SDK starts from min=inf and max=-inf, and leaves them so when it is not to record them
    recorded = not (point.min == math.inf and point.max == -math.inf)
    return {
        "count": point.count,
        "sum": float(point.sum),
        "min": float(point.min) if recorded else None,
        "max": float(point.max) if recorded else None,
    }


def _number(value: int | float) -> int | float:
    return int(value) if isinstance(value, int) and value in _INT64 else float(value)
