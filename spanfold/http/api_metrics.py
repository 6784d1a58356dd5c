"""The metrics of the API for commands and queries, each declared once with its type, unit and meaning."""

from typing import Final

from prometheus_client import Histogram

from spanfold.application.buses import Middleware, timing
from spanfold.http.metrics import process_registry

BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class ApiMetrics:
    """The metrics of one API process. Counts begin at 0 with the process."""

    def __init__(self) -> None:
        self.registry = process_registry()
        self.duration = Histogram(
            "spanfold_api_message_duration_seconds",
            "From a message's arrival at its bus to its answer, by kind (command or query), type, and outcome: ok or the name "
            "of the error. Types that nobody handles are not counted.",
            ("kind", "type", "outcome"), buckets=BUCKETS, registry=self.registry,
        )  # fmt: skip

    def observing(self, kind: str) -> Middleware:
        """Middleware that times every message of a bus of this kind."""

        def observe(message_type: str, seconds: float, outcome: str) -> None:
            self.duration.labels(kind, message_type, outcome).observe(seconds)

        return timing(observe)
