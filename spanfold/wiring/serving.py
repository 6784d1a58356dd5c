"""Runs an application until SIGTERM or SIGINT, in the event loop of what it is made of."""

import signal
import socket
from collections.abc import Callable
from types import FrameType
from typing import Final

import uvicorn
from fastapi import FastAPI

from spanfold.errors import Misconfigured

FINISH_S: Final = 45
"""How long requests in flight may take when the process is told to stop: longer than an append or a query waits."""


async def serve(app: FastAPI, host: str, port: int, started: Callable[[str], None]) -> None:
    """Serve until the process is told to stop; then requests in flight are finished, and it returns. `started` is given the URL,
    without a slash at its end; port 0 takes any. Misconfigured when the address can't be had.
    """
    with _listening(host, port) as listening:
        config = uvicorn.Config(
            app, lifespan="off", log_config=None, access_log=False, timeout_graceful_shutdown=FINISH_S
        )
        server = uvicorn.Server(config)

        def stop(_number: int, _frame: FrameType | None) -> None:
            server.should_exit = True

        # uvicorn stops by itself, and then raises the signal once more, for whoever handled it before: that is us
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, stop)
        started(_url(listening))
        await server.serve(sockets=[listening])


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise Misconfigured(
            f"can't listen on {host}:{port}: {error.strerror or error}. Give another --port; 0 takes any."
        ) from error


def _url(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
