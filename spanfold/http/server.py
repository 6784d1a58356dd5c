"""HTTP servers for ASGI applications: on SIGTERM or SIGINT they finish the requests in flight and return."""

import signal
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn
from fastapi import FastAPI

from spanfold.http.sockets import url_of


def run(app: FastAPI, address: socket.socket, finish_s: int, started: Callable[[str], None]) -> None:
    """Serve in an event loop of its own until the process is told to stop. `started` is given the URL, without a slash at its
    end; requests in flight have `finish_s` seconds to end.
    """
    server = _stoppable(app, finish_s)
    started(url_of(address))
    server.run(sockets=[address])


async def serve(app: FastAPI, address: socket.socket, finish_s: int, started: Callable[[str], None]) -> None:
    """The same in the running event loop, for an application whose parts belong to it."""
    server = _stoppable(app, finish_s)
    started(url_of(address))
    await server.serve(sockets=[address])


def _stoppable(app: FastAPI, finish_s: int) -> uvicorn.Server:
    config = uvicorn.Config(app, lifespan="off", log_config=None, access_log=False, timeout_graceful_shutdown=finish_s)
    server = uvicorn.Server(config)

    def stop(_number: int, _frame: FrameType | None) -> None:
        server.should_exit = True

    # uvicorn stops by itself, and then raises the signal once more for the handler from before: this one
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    return server
