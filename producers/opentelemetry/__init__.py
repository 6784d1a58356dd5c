"""OpenTelemetry's signals as events: one line in an application whose telemetry is already set up.

    tracer_provider.add_span_processor(SpanfoldSpanProcessor())
    MeterProvider(metric_readers=[PeriodicExportingMetricReader(SpanfoldMetricExporter())])

| signal  | class                                                    | events                                       |
|---------|----------------------------------------------------------|----------------------------------------------|
| traces  | SpanfoldSpanProcessor, as spans start and end            | TraceCreated, SpanRecorded, TraceCompleted or TraceFailed |
| traces  | SpanfoldSpanExporter, for a BatchSpanProcessor           | the same                                     |
| metrics | SpanfoldMetricExporter                                   | MetricUpdated                                |
| logs    | SpanfoldLogExporter of .logs; SpanfoldLogHandler of producers.log_handler | LogRecorded                 |

The settings come from the environment (SPANFOLD_KAFKA_BOOTSTRAP) unless a publisher is given. The log exporter has to be
imported from its module: OpenTelemetry doesn't call that part of its SDK stable yet.
"""

from spanfold.language.extras import needs

with needs("otel", __name__):
    from spanfold.producers.opentelemetry.metrics import SpanfoldMetricExporter
    from spanfold.producers.opentelemetry.tracing import SpanfoldSpanExporter, SpanfoldSpanProcessor

__all__ = ["SpanfoldMetricExporter", "SpanfoldSpanExporter", "SpanfoldSpanProcessor"]
