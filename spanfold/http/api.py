"""Commands and queries over HTTP: the buses behind two routes, for programs in any language.

POST /commands takes a Command, POST /queries a Query (spanfold.messages) as JSON; errors are told as problems.py says. A command
that is sent again with its `command_id` is carried out once.
"""

import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import MISSING, fields
from http import HTTPStatus
from typing import Any, Final, TypeVar

import orjson
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client.exposition import choose_encoder
from pydantic import TypeAdapter, ValidationError
from starlette.exceptions import HTTPException

from spanfold.application.buses import CommandBus, QueryBus
from spanfold.application.messages import Command, Query
from spanfold.http.api_metrics import ApiMetrics
from spanfold.http.plain import plain
from spanfold.http.problems import NotJson, TooLarge, problem, problem_of
from spanfold.language.errors import InvalidInput, SpanfoldError
from spanfold.language.json_values import refuse_missing, refuse_unknown

E = TypeVar("E", Command, Query)

MAX_BODY_BYTES: Final = 1 << 20

HERE: Final = "there are POST /commands, POST /queries, /operations, GET /healthz and GET /metrics"

_COMMANDS: Final = TypeAdapter(Command)
_QUERIES: Final = TypeAdapter(Query)

Problems = Callable[[], Awaitable[list[str]]]
"""What keeps messages from being answered now, each in a sentence."""


def api_app(
    commands: CommandBus, queries: QueryBus, problems: Problems, metrics: ApiMetrics, *routers: APIRouter
) -> FastAPI:
    """The application, with the routes of these routers beside its own; the buses stay their owner's."""
    app = FastAPI(title="spanfold", openapi_url=None)
    for router in routers:
        app.include_router(router)

    @app.post("/commands")
    async def send_command(request: Request) -> Response:
        async def carry_out() -> dict[str, Any]:
            command = envelope(await json_body(request), Command, _COMMANDS)
            return {"command_id": command.command_id, **_told(await commands.send(command))}

        return await _answer(carry_out, commands.handled)

    @app.post("/queries")
    async def ask_query(request: Request) -> Response:
        async def ask() -> dict[str, Any]:
            query = envelope(await json_body(request), Query, _QUERIES)
            return {"query_id": query.query_id, **_told(await queries.ask(query))}

        return await _answer(ask, queries.handled)

    @app.get("/healthz")
    async def health() -> JSONResponse:
        found = await problems()
        body = {"healthy": not found, "problems": found, "pid": os.getpid()}
        return JSONResponse(body, HTTPStatus.SERVICE_UNAVAILABLE if found else HTTPStatus.OK)

    @app.get("/metrics")
    async def show_metrics(request: Request) -> Response:
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(metrics.registry), headers={"content-type": content_type})

    @app.exception_handler(HTTPException)
    async def no_such_page(_: Request, error: HTTPException) -> JSONResponse:
        status = HTTPStatus(error.status_code)
        return problem(status, status.phrase, HERE)

    return app


def envelope(said: Mapping[str, Any], kind: type[E], adapter: TypeAdapter[E]) -> E:
    """The envelope that a JSON object describes. InvalidInput names each field that is unknown, missing or wrong: a
    misspelt command_id must not become a new one.
    """
    name = kind.__name__
    refuse_unknown(said, [each.name for each in fields(kind)], name)
    needed = [each.name for each in fields(kind) if each.default is MISSING and each.default_factory is MISSING]
    refuse_missing(said, needed, name)
    try:
        return adapter.validate_python(dict(said))
    except ValidationError as error:
        wrong = (f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors(include_url=False))
        raise InvalidInput(f"{name}: {'; '.join(wrong)}") from error


async def _answer(carry_out: Callable[[], Awaitable[dict[str, Any]]], known: tuple[str, ...]) -> Response:
    try:
        return Response(orjson.dumps(await carry_out()), media_type="application/json")
    except SpanfoldError as error:
        return problem_of(error, known)


async def json_body(request: Request) -> dict[str, Any]:
    """The JSON object of the body. NotJson, TooLarge."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise TooLarge(f"the body is larger than {MAX_BODY_BYTES} bytes")
    try:
        said = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise NotJson(f"the body is no JSON: {error}") from error
    if not isinstance(said, dict):
        raise NotJson('the body is no JSON object: send an envelope such as {"query_type": "FindTraces"}')
    return said


def _told(result: Any) -> dict[str, Any]:
    """A handler's result as an object: its fields where it has any, else as `result`."""
    told = plain(result)
    return told if isinstance(told, dict) else {"result": told}
