"""A program that knows OpenTelemetry and nothing of spanfold: `spans.py SPANS SPANS_A_TRACE`, set up by OTEL_… alone."""

import json
import sys
import time

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

PACE_S = 0.004
"""Between two traces, so that the program runs for some seconds."""

spans, of_trace = int(sys.argv[1]), int(sys.argv[2])
provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
tracer = provider.get_tracer("shop")
for number in range(spans // of_trace):
    with tracer.start_as_current_span("POST /checkout", attributes={"cart": number, "lines": ["book", "pen"]}):
        for step in range(of_trace - 1):
            with tracer.start_as_current_span("SELECT stock", attributes={"step": step, "sku": f"s-{number}"}):
                pass
    time.sleep(PACE_S)
provider.shutdown()
print(json.dumps({"spans": spans, "traces": spans // of_trace}))
