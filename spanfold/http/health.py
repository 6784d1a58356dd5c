"""GET /healthz of every process: 200 while it does its work, else 503; both times {"healthy", "problems", "pid"} as JSON."""

import os
from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import orjson

if TYPE_CHECKING:
    from fastapi import FastAPI

PATH: Final = "/healthz"

Problems = Callable[[], Awaitable[list[str]]]
"""What keeps a process from doing its work now, each in a sentence; empty when it is healthy."""


def health_answer(problems: Sequence[str]) -> tuple[HTTPStatus, bytes]:
    """Status and JSON body for a process of this pid that has these problems."""
    status = HTTPStatus.SERVICE_UNAVAILABLE if problems else HTTPStatus.OK
    return status, orjson.dumps({"healthy": not problems, "problems": problems, "pid": os.getpid()})


def add_health(app: "FastAPI", problems: Problems) -> None:
    """Serve /healthz in this application."""
    from starlette.responses import Response  # imported here: workers answer without it

    async def healthz(_: Any) -> Response:
        status, body = health_answer(await problems())
        return Response(body, status, media_type="application/json")

    app.add_route(PATH, healthz, methods=["GET"])
