"""Runs the front door as a process."""

import signal
import socket
from collections.abc import Callable
from types import FrameType
from typing import Final

import uvicorn

from producers.otlp.app import otlp_app
from producers.otlp.broker import Broker
from producers.otlp.intake import ACK_S, otlp_publisher
from spanfold.errors import Misconfigured
from spanfold.settings import Settings

FINISH_S: Final = ACK_S + 5.0
"""How long requests in flight may take when the process is told to stop."""


def serve(settings: Settings, host: str, port: int, started: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT; then requests in flight are finished, and it returns.

    `started` is given the URL, without a slash at its end; port 0 takes any. Misconfigured when no Kafka is named, or the
    address can't be had. Kafka need not be there.
    """
    with otlp_publisher(settings) as publisher, _listening(host, port) as listening:
        config = uvicorn.Config(
            otlp_app(publisher, Broker(settings)),
            lifespan="off",
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=int(FINISH_S),
        )
        server = uvicorn.Server(config)
        _stop_on_signals(server)
        started(_url(listening))
        server.run(sockets=[listening])


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise Misconfigured(
            f"OTLP can't listen on {host}:{port}: {error.strerror or error}. Give another --port, or set"
            " SPANFOLD_OTLP_PORT; port 0 takes any."
        ) from error


def _url(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _stop_on_signals(server: uvicorn.Server) -> None:
    """uvicorn stops by itself, and then raises the signal once more, for whoever handled it before: that is us."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
