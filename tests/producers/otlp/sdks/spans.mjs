// A program that knows OpenTelemetry and nothing of spanfold: `spans.mjs SPANS SPANS_A_TRACE`, set up by OTEL_… alone.
import { setTimeout as sleep } from "node:timers/promises";
import { context, trace } from "@opentelemetry/api";
import { OTLPTraceExporter } from "@opentelemetry/exporter-trace-otlp-http";
import { detectResources, envDetector } from "@opentelemetry/resources";
import { BatchSpanProcessor, NodeTracerProvider } from "@opentelemetry/sdk-trace-node";

const PACE_MS = 4; // between two traces, so that the program runs for some seconds

const [spans, ofTrace] = process.argv.slice(2).map(Number);
const provider = new NodeTracerProvider({
  resource: detectResources({ detectors: [envDetector] }),
  spanProcessors: [new BatchSpanProcessor(new OTLPTraceExporter())],
});
const tracer = provider.getTracer("shop");
for (let number = 0; number < spans / ofTrace; number++) {
  const root = tracer.startSpan("POST /checkout", { attributes: { cart: number, lines: ["book", "pen"] } });
  const within = trace.setSpan(context.active(), root);
  for (let step = 0; step < ofTrace - 1; step++) {
    tracer.startSpan("SELECT stock", { attributes: { step, sku: `s-${number}` } }, within).end();
  }
  root.end();
  await sleep(PACE_MS);
}
await provider.shutdown();
console.log(JSON.stringify({ spans, traces: spans / ofTrace }));
