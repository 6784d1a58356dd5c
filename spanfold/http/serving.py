"""Runs an application until SIGTERM or SIGINT, in the event loop of what it is made of."""

from collections.abc import Callable
from typing import Final

from fastapi import FastAPI

from spanfold.http.server import listening, stoppable_server, url_of

FINISH_S: Final = 45
"""How long requests in flight may take when the process is told to stop: longer than an append or a query waits."""


async def serve(app: FastAPI, host: str, port: int, started: Callable[[str], None]) -> None:
    """Serve until the process is told to stop; then requests in flight are finished, and it returns. `started` is given the URL,
    without a slash at its end; port 0 takes any. Misconfigured when the address can't be had.
    """
    with listening(host, port, "the API", "SPANFOLD_API_PORT") as address:
        server = stoppable_server(app, FINISH_S)
        started(url_of(address))
        await server.serve(sockets=[address])
