"""The worker's HTTP server: /metrics for Prometheus, /healthz for whoever restarts it. In threads of its own."""

import json
import os
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from threading import Thread

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from spanfold.language.errors import Misconfigured

Unwell = Callable[[], list[str]]


def serve(host: str, port: int, registry: CollectorRegistry, unwell: Unwell) -> str:
    """Serve until the process ends, on that port or with 0 on a free one; returns the URL, without a slash at its end.

    /healthz answers 200 while `unwell` finds nothing, else 503; both times with {"healthy", "problems", "pid"}.
    Misconfigured when the address can't be had.
    """
    try:
        server = _Server((host, port), _Handler)
    except OSError as error:
        raise Misconfigured(
            f"the worker can't listen on {host}:{port}: {error.strerror or error}. Set SPANFOLD_WORKER_HOST and"
            " SPANFOLD_WORKER_PORT to an address that is free; port 0 takes any."
        ) from error
    server.registry, server.unwell = registry, unwell
    Thread(target=server.serve_forever, name="spanfold-http", daemon=True).start()
    return f"http://{host}:{server.server_port}"


class _Server(ThreadingHTTPServer):
    registry: CollectorRegistry
    unwell: Unwell

    def server_bind(self) -> None:
        """Without HTTPServer's own part of it, which asks the DNS for a name that nobody needs."""
        TCPServer.server_bind(self)
        self.server_port = self.server_address[1]


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        """The two pages; anything else is 404."""
        match self.path.partition("?")[0]:
            case "/metrics":
                encode, content_type = choose_encoder(self.headers.get("Accept", ""))
                self._answer(HTTPStatus.OK, content_type, encode(self.server.registry))
            case "/healthz":
                problems = self.server.unwell()
                body = {"healthy": not problems, "problems": problems, "pid": os.getpid()}
                status = HTTPStatus.SERVICE_UNAVAILABLE if problems else HTTPStatus.OK
                self._answer(status, "application/json", json.dumps(body).encode() + b"\n")
            case _:
                self._answer(HTTPStatus.NOT_FOUND, "text/plain; charset=utf-8", b"There are /metrics and /healthz.\n")

    def _answer(self, status: HTTPStatus, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Scrapes are no news."""
