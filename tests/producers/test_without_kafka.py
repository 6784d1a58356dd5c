"""An application whose Kafka nobody has named yet starts, and is told once."""

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult

from spanfold.language.settings import settings
from spanfold.producers.log_handler import SpanfoldLogHandler
from spanfold.producers.opentelemetry import SpanfoldMetricExporter, SpanfoldSpanExporter, SpanfoldSpanProcessor
from spanfold.producers.opentelemetry.logs import SpanfoldLogExporter

ENVIRONMENTS: dict[str, dict[str, str]] = {
    "none": {},
    "an invalid setting": {"SPANFOLD_KAFKA_BOOTSTRAP": "kafka:9092", "SPANFOLD_PARTITIONS": "many"},
    "a certificate that is missing": {
        "SPANFOLD_KAFKA_BOOTSTRAP": "kafka:9092", "SPANFOLD_KAFKA_SECURITY_PROTOCOL": "SSL",
        "SPANFOLD_KAFKA_SSL_CAFILE": "/nowhere/ca.pem",
    },
}  # fmt: skip


@pytest.fixture(params=ENVIRONMENTS)
def unusable(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The environment names no Kafka that could be used."""
    for name in ("SPANFOLD_KAFKA_BOOTSTRAP", "SPANFOLD_PARTITIONS", "SPANFOLD_KAFKA_SECURITY_PROTOCOL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in ENVIRONMENTS[request.param].items():
        monkeypatch.setenv(name, value)
    settings.cache_clear()
    yield
    settings.cache_clear()


@pytest.mark.parametrize(
    "make",
    [SpanfoldSpanProcessor, SpanfoldSpanExporter, SpanfoldMetricExporter, SpanfoldLogExporter, SpanfoldLogHandler],
)
def test_it_is_said_once(unusable: None, make: Callable[[], Any], caplog: pytest.LogCaptureFixture) -> None:
    made = make()
    assert caplog.text.count("nothing will be published") == 1
    assert made.publisher.counts().published == 0


def test_what_is_recorded_is_dropped(unusable: None, caplog: pytest.LogCaptureFixture) -> None:
    processor, exporter = SpanfoldSpanProcessor(), SpanfoldSpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(processor)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    reader = PeriodicExportingMetricReader(SpanfoldMetricExporter())
    meters = MeterProvider([reader], shutdown_on_exit=False)
    log = logging.getLogger("application")
    log.addHandler(handler := SpanfoldLogHandler())
    for number in range(3):
        with provider.get_tracer("test").start_as_current_span("work"):
            meters.get_meter("test").create_counter("works").add(number)
            log.warning("working")
    log.removeHandler(handler)
    assert provider.force_flush()
    assert processor.publisher.counts().dropped == 9
    assert exporter.publisher.counts().dropped == 9
    assert handler.publisher.counts().dropped == 3
    assert exporter.export([]) is SpanExportResult.SUCCESS
    for closed in (provider, meters):
        closed.shutdown()
    handler.close()
