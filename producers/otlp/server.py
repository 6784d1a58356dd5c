"""Runs the front door as a process."""

from collections.abc import Callable
from typing import Final

from producers.http_server import listening, stoppable_server, url_of
from producers.otlp.app import otlp_app
from producers.otlp.broker import Broker
from producers.otlp.intake import ACK_S, otlp_publisher
from spanfold.settings import Settings

FINISH_S: Final = int(ACK_S + 5.0)
"""How long requests in flight may take when the process is told to stop."""


def serve(settings: Settings, host: str, port: int, started: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT; then requests in flight are finished, and it returns.

    `started` is given the URL, without a slash at its end; port 0 takes any. Misconfigured when no Kafka is named, or the
    address can't be had. Kafka need not be there.
    """
    with otlp_publisher(settings) as publisher, listening(host, port, "OTLP", "SPANFOLD_OTLP_PORT") as address:
        server = stoppable_server(otlp_app(publisher, Broker(settings)), FINISH_S)
        started(url_of(address))
        server.run(sockets=[address])
