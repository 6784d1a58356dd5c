"""The worker's HTTP server: /metrics for Prometheus, /healthz for whatever restarts it. In threads of its own, so that it answers
when the worker's event loop hangs.
"""

from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

from prometheus_client import CollectorRegistry

from spanfold.http import health, metrics
from spanfold.http.sockets import listening, url_of

Problems = Callable[[], list[str]]

REMEDY = "Set SPANFOLD_WORKER_HOST and SPANFOLD_WORKER_PORT to an address that is free"


def serve(host: str, port: int, registry: CollectorRegistry, problems: Problems) -> str:
    """Serve until the process ends, on that port or with 0 on a free one; returns the URL, without a slash at its end.
    Misconfigured when the address is not available.
    """
    address = listening(host, port, "the worker", REMEDY)
    server = _Server((host, port), _Handler, bind_and_activate=False)
    server.socket.close()
    server.socket = address
    server.registry, server.problems = registry, problems
    Thread(target=server.serve_forever, name="spanfold-http", daemon=True).start()
    return url_of(address)


class _Server(ThreadingHTTPServer):
    registry: CollectorRegistry
    problems: Problems


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        """The two pages; anything else is 404."""
        match self.path.partition("?")[0]:
            case metrics.PATH:
                content_type, body = metrics.metrics_answer(self.server.registry, self.headers.get("Accept", ""))
                self._answer(HTTPStatus.OK, content_type, body)
            case health.PATH:
                status, body = health.health_answer(self.server.problems())
                self._answer(status, "application/json", body + b"\n")
            case _:
                self._answer(HTTPStatus.NOT_FOUND, "text/plain; charset=utf-8", b"There are /metrics and /healthz.\n")

    def _answer(self, status: HTTPStatus, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Scrapes are not logged."""
