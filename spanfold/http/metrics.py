"""GET /metrics of every process: its counters in Prometheus' formats. What is counted stands where it happens: api_metrics.py,
producers/otlp/metrics.py, stream_processors/worker/metrics.py.
"""

from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder

if TYPE_CHECKING:
    from fastapi import FastAPI, Request, Response

PATH: Final = "/metrics"


def process_registry() -> CollectorRegistry:
    """A registry with the metrics of this process (CPU, memory, file descriptors), for those of its work."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    return registry


def metrics_answer(registry: CollectorRegistry, accept: str) -> tuple[str, bytes]:
    """Content type and body, in the format that the request header Accept prefers."""
    encode, content_type = choose_encoder(accept)
    return content_type, encode(registry)


def add_metrics(app: "FastAPI", registry: CollectorRegistry) -> None:
    """Serve /metrics in this application."""
    from starlette.responses import Response  # imported here: workers answer without it

    async def show_metrics(request: "Request") -> "Response":
        content_type, body = metrics_answer(registry, request.headers.get("accept", ""))
        return Response(body, headers={"content-type": content_type})

    app.add_route(PATH, show_metrics, methods=["GET"])
