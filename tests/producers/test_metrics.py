"""The real OpenTelemetry metrics SDK, publishing through a real Kafka."""

import math
import time
from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry.metrics import Observation
from opentelemetry.sdk.metrics import Counter, MeterProvider
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    InMemoryMetricReader,
    Metric,
    MetricExportResult,
    MetricsData,
    NumberDataPoint,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View
from opentelemetry.sdk.resources import Resource

from spanfold.language.events import series_id
from spanfold.producers.opentelemetry import SpanfoldMetricExporter
from spanfold.producers.publisher import TelemetryPublisher

Points = Callable[[int], list[dict[str, Any]]]

RESOURCE = Resource({"service.name": "checkout", "service.instance.id": "i-1", "host.cpus": (1, 2)})
NEVER = math.inf


def _provider(exporter: SpanfoldMetricExporter, *views: View) -> MeterProvider:
    reader = PeriodicExportingMetricReader(exporter, export_interval_millis=NEVER)
    return MeterProvider(metric_readers=[reader], resource=RESOURCE, views=views, shutdown_on_exit=False)


def _collected(fill: Callable[[Any], object]) -> MetricsData:
    reader = InMemoryMetricReader()
    provider = MeterProvider(metric_readers=[reader], resource=RESOURCE, shutdown_on_exit=False)
    fill(provider.get_meter("test"))
    data = reader.get_metrics_data()
    assert data
    return data


def test_a_counter_is_a_sum_of_its_series(publisher: TelemetryPublisher, points: Points) -> None:
    provider = _provider(SpanfoldMetricExporter(publisher))
    orders = provider.get_meter("shop").create_counter("orders", unit="{order}")
    orders.add(3, {"kind": "card", "ok": True})
    before = time.time_ns() // 1000
    assert provider.force_flush()
    orders.add(4, {"ok": True, "kind": "card"})
    assert provider.force_flush()
    first, second = sorted(points(2), key=lambda each: each["occurred_at"])
    labels: dict[str, Any] = {"kind": "card", "ok": True}
    resource: dict[str, Any] = {"service.name": "checkout", "service.instance.id": "i-1", "host.cpus": [1, 2]}
    assert first["aggregate_id"] == second["aggregate_id"] == series_id(resource, "shop", "orders", labels)
    assert (first["name"], first["unit"], first["scope_name"], first["labels"]) == ("orders", "{order}", "shop", labels)
    assert (first["resource"], first["scope_version"], first["scope_attributes"]) == (resource, "", {})
    assert (first["kind"], first["temporality"], first["monotonic"]) == ("sum", "cumulative", True)
    assert (first["service_name"], first["source"]) == ("checkout", "checkout/i-1")
    assert (first["value"], second["value"]) == (3, 7)
    assert isinstance(first["value"], int)
    assert first["start_time"] == second["start_time"] <= before <= first["occurred_at"] < second["occurred_at"]
    assert first["count"] is first["sum"] is None


def test_scopes_of_another_version_or_with_other_attributes_have_series_of_their_own(
    publisher: TelemetryPublisher, points: Points
) -> None:
    provider = _provider(SpanfoldMetricExporter(publisher))
    for version, attributes in (("1", {"a": 1}), ("2", {"a": 1}), ("2", {"a": 2})):
        provider.get_meter("shop", version, attributes=attributes).create_counter("orders").add(1)
    assert provider.force_flush()
    found = points(3)
    assert sorted((each["scope_version"], each["scope_attributes"]["a"]) for each in found) == [
        ("1", 1),
        ("2", 1),
        ("2", 2),
    ]
    for each in found:
        scope = each["scope_version"], each["scope_attributes"]
        assert each["aggregate_id"] == series_id(each["resource"], "shop", "orders", {}, *scope)
    assert len({each["aggregate_id"] for each in found}) == 3


def test_a_gauge_keeps_what_is_no_number(publisher: TelemetryPublisher, points: Points) -> None:
    values = (21.5, math.nan, math.inf, -math.inf, -0.0, 2**63, -(2**63))

    # the SDK's own instruments ignore NaN and infinities; points that come from elsewhere have them
    gauge = Gauge([NumberDataPoint({"n": number}, 0, 1000, value) for number, value in enumerate(values)])
    data = _collected(lambda meter: meter.create_gauge("temperature").set(1))
    scope = data.resource_metrics[0].scope_metrics[0]
    object.__setattr__(scope, "metrics", [Metric("temperature", "", "Cel", gauge)])
    assert SpanfoldMetricExporter(publisher).export(data) is MetricExportResult.SUCCESS
    found = sorted(points(len(values)), key=lambda each: each["labels"]["n"])
    assert [repr(each["value"]) for each in found] == [
        "21.5", "nan", "inf", "-inf", "-0.0", repr(float(2**63)), repr(-(2**63)),
    ]  # fmt: skip
    assert {(each["kind"], each["temporality"], each["monotonic"]) for each in found} == {("gauge", None, False)}
    assert len({each["aggregate_id"] for each in found}) == len(values)


def test_a_histogram_has_one_more_bucket_than_bounds(publisher: TelemetryPublisher, points: Points) -> None:
    provider = _provider(SpanfoldMetricExporter(publisher))
    histogram = provider.get_meter("shop").create_histogram(
        "duration", "s", explicit_bucket_boundaries_advisory=[0.1, 1]
    )
    for value in (0.05, 0.1, 0.5, 7):
        histogram.record(value)
    assert provider.force_flush()
    (point,) = points(1)
    assert (point["kind"], point["temporality"], point["unit"]) == ("histogram", "cumulative", "s")
    assert (point["count"], point["sum"], point["min"], point["max"]) == (4, 7.65, 0.05, 7.0)
    assert (point["bounds"], point["bucket_counts"]) == ([0.1, 1.0], [2, 1, 1])
    assert point["value"] is None


def test_an_exponential_histogram_keeps_its_scale_and_both_sides(publisher: TelemetryPublisher, points: Points) -> None:
    view = View(instrument_name="size", aggregation=ExponentialBucketHistogramAggregation())
    provider = _provider(SpanfoldMetricExporter(publisher), view)
    histogram = provider.get_meter("shop").create_histogram("size")
    for value in (1, 2, 2, 1000, 0):
        histogram.record(value)
    assert provider.force_flush()
    (point,) = points(1)
    assert (point["kind"], point["temporality"]) == ("exponential_histogram", "cumulative")
    assert (point["count"], point["sum"], point["min"], point["max"]) == (5, 1005.0, 0.0, 1000.0)
    assert (point["zero_count"], sum(point["positive_counts"]), sum(point["negative_counts"])) == (1, 4, 0)
    base = 2 ** (2 ** -point["scale"])
    assert base ** point["positive_offset"] < 1 <= base ** (point["positive_offset"] + 1)


@pytest.mark.parametrize(
    ("temporality", "expected"),
    [
        ("cumulative", {"c": "cumulative", "o": "cumulative", "h": "cumulative", "u": "cumulative"}),
        ("delta", {"c": "delta", "o": "delta", "h": "delta", "u": "cumulative"}),
        ("lowmemory", {"c": "delta", "o": "cumulative", "h": "delta", "u": "cumulative"}),
        (
            {Counter: AggregationTemporality.DELTA},
            {"c": "delta", "o": "cumulative", "h": "cumulative", "u": "cumulative"},
        ),
    ],
)
def test_temporality_is_what_was_asked_for(
    publisher: TelemetryPublisher, points: Points, temporality: Any, expected: dict[str, str]
) -> None:
    provider = _provider(SpanfoldMetricExporter(publisher, temporality=temporality))
    meter = provider.get_meter("shop")
    counter, up_down = meter.create_counter("c"), meter.create_up_down_counter("u")
    meter.create_observable_counter("o", [lambda _: [Observation(5)]])
    histogram = meter.create_histogram("h")
    for _ in range(2):
        counter.add(2)
        up_down.add(-2)
        histogram.record(1)
        assert provider.force_flush()
    found = points(8)
    assert {each["name"]: each["temporality"] for each in found} == expected
    last = max((each for each in found if each["name"] == "c"), key=lambda each: each["occurred_at"])
    assert last["value"] == (2 if expected["c"] == "delta" else 4)
    assert {each["monotonic"] for each in found if each["name"] == "u"} == {False}


def test_a_re_export_is_the_same_events(publisher: TelemetryPublisher, points: Points) -> None:
    def fill(meter: Any) -> None:
        meter.create_counter("c").add(1, {"a": 1})
        meter.create_histogram("h").record(3)
        meter.create_gauge("g").set(0.1)

    data, exporter = _collected(fill), SpanfoldMetricExporter(publisher)
    assert exporter.export(data) is MetricExportResult.SUCCESS
    assert exporter.export(data) is MetricExportResult.SUCCESS
    assert len({(each["event_id"], each["occurred_at"]) for each in points(6)}) == 3


def test_a_histogram_that_recorded_no_extremes_has_none(publisher: TelemetryPublisher, points: Points) -> None:
    view = View(instrument_name="h", aggregation=ExponentialBucketHistogramAggregation(record_min_max=False))
    provider = _provider(SpanfoldMetricExporter(publisher), view)
    provider.get_meter("shop").create_histogram("h").record(3)
    assert provider.force_flush()
    (point,) = points(1)
    assert (point["min"], point["max"], point["count"]) == (None, None, 1)


def test_an_export_that_kafka_did_not_acknowledge_failed(caplog: pytest.LogCaptureFixture) -> None:
    data = _collected(lambda meter: meter.create_counter("c").add(1))
    with TelemetryPublisher("127.0.0.1:1", on_full="drop", message_timeout_s=60) as publisher:
        exporter = SpanfoldMetricExporter(publisher)
        started = time.monotonic()
        assert exporter.export(data, timeout_millis=300) is MetricExportResult.FAILURE
        assert 0.3 <= time.monotonic() - started < 30
        assert exporter.force_flush(timeout_millis=10) is False
        started = time.monotonic()
        exporter.shutdown(timeout_millis=200)
        assert time.monotonic() - started < 30
        assert exporter.export(data) is MetricExportResult.FAILURE
        publisher.close(0.1)


def test_what_a_dropping_publisher_drops_is_a_failure(publisher: TelemetryPublisher) -> None:
    data = _collected(lambda meter: meter.create_counter("c").add(1, {"body": "x" * 1_100_000}))
    with TelemetryPublisher(publisher._settings, on_full="drop") as dropping:
        assert SpanfoldMetricExporter(dropping).export(data) is MetricExportResult.FAILURE
        assert dropping.counts().dropped == 1
    assert SpanfoldMetricExporter(publisher).export(data) is MetricExportResult.FAILURE


def test_one_bad_point_does_not_hold_up_the_others(
    publisher: TelemetryPublisher, points: Points, caplog: pytest.LogCaptureFixture
) -> None:
    data = _collected(lambda meter: (meter.create_counter("bad").add(1), meter.create_counter("good").add(1)))
    object.__setattr__(data.resource_metrics[0].scope_metrics[0].metrics[0].data.data_points[0], "value", "x")
    assert SpanfoldMetricExporter(publisher).export(data) is MetricExportResult.FAILURE
    assert points(1)[0]["name"] == "good"
    assert "a metric point was not published" in caplog.text


def test_a_periodic_reader_exports_what_is_left_at_shutdown(publisher: TelemetryPublisher, points: Points) -> None:
    reader = PeriodicExportingMetricReader(SpanfoldMetricExporter(publisher), export_interval_millis=600_000)
    provider = MeterProvider(metric_readers=[reader], resource=RESOURCE)
    provider.get_meter("shop").create_counter("c").add(1)
    provider.shutdown()
    assert points(1)[0]["value"] == 1
