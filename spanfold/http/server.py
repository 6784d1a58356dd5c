"""An HTTP server for an ASGI application, which ends in order when its process is told to."""

import signal
import socket
from types import FrameType

import uvicorn
from fastapi import FastAPI

from spanfold.language.errors import Misconfigured


def listening(host: str, port: int, who: str, setting: str) -> socket.socket:
    """A socket that listens on the address; port 0 takes any. Misconfigured when it can't be had: that says `who` wanted it, and
    by which `setting` of the environment another port is named.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise Misconfigured(
            f"{who} can't listen on {host}:{port}: {error.strerror or error}. Give another --port, or set {setting};"
            " port 0 takes any."
        ) from error


def url_of(address: socket.socket) -> str:
    """The URL of what listens there, without a slash at its end."""
    host, port = address.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def stoppable_server(app: FastAPI, finish_s: int) -> uvicorn.Server:
    """A server that stops on SIGTERM and SIGINT: requests in flight have `finish_s` seconds to be finished, then it returns."""
    config = uvicorn.Config(app, lifespan="off", log_config=None, access_log=False, timeout_graceful_shutdown=finish_s)
    server = uvicorn.Server(config)

    def stop(_number: int, _frame: FrameType | None) -> None:
        server.should_exit = True

    # uvicorn stops by itself, and then raises the signal once more, for whoever handled it before: that is us
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    return server
