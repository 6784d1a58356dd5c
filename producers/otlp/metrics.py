"""The metrics of the OTLP door, each declared once with its type, unit and meaning."""

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

from spanfold.http.metrics import process_registry

ACK_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """The metrics of one OTLP process. Counts begin at 0 with the process."""

    def __init__(self) -> None:
        self.registry = process_registry()
        self.requests = Counter(
            "spanfold_otlp_requests", "Requests to /v1/traces, by the HTTP status of their answer.", ("status",),
            registry=self.registry,
        )  # fmt: skip
        self.requests_in_flight = Gauge(
            "spanfold_otlp_requests_in_flight",
            "Requests to /v1/traces that have no answer yet.",
            registry=self.registry,
        )
        self.spans_accepted = Counter(
            "spanfold_otlp_spans_accepted",
            "Spans of requests that were answered with 200 after Kafka had acknowledged them; a span that is sent twice "
            "counts twice.",
            registry=self.registry,
        )
        self.spans_rejected = Counter(
            "spanfold_otlp_spans_rejected",
            "Invalid spans; the answer named them to their sender.",
            registry=self.registry,
        )
        self.ack_duration = Histogram(
            "spanfold_otlp_ack_duration_seconds",
            "From a request's last byte to Kafka's acknowledgement of its last record; answers with 200 only.",
            buckets=ACK_BUCKETS, registry=self.registry,
        )  # fmt: skip
