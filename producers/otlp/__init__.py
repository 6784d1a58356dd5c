"""OTLP/HTTP: programs in any language publish to spanfold with their OpenTelemetry SDK as it is.

A request to POST /v1/traces passes through, in order: `app` (HTTP) → `bodies` (bytes → message) → `intake` (publishes, and
waits for Kafka) → `spans` (a message's span → SpanRecorded) → spanfold.producers.spans (its events).
"""
