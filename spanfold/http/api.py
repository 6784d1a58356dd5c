"""Commands and queries over HTTP: the buses behind two routes, for programs in any language.

POST /commands takes a Command, POST /queries a Query (spanfold.application.messages) as JSON; problems.py lists the errors. A
command that is sent again with the same `command_id` is carried out once.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import MISSING, fields
from http import HTTPStatus
from typing import Any, Final, TypeVar

import orjson
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import JSONResponse
from pydantic import TypeAdapter, ValidationError
from starlette.exceptions import HTTPException

from spanfold.application.buses import CommandBus, QueryBus
from spanfold.application.messages import Command, Query
from spanfold.http.api_metrics import ApiMetrics
from spanfold.http.body_limits import json_object
from spanfold.http.health import Problems, add_health
from spanfold.http.json_results import plain
from spanfold.http.metrics import add_metrics
from spanfold.http.problems import problem, problem_of
from spanfold.language.errors import InvalidInput, SpanfoldError
from spanfold.language.json_values import refuse_missing, refuse_unknown

E = TypeVar("E", Command, Query)

ROUTES: Final = "there are POST /commands, POST /queries, /operations, GET /healthz and GET /metrics"

_COMMANDS: Final = TypeAdapter(Command)
_QUERIES: Final = TypeAdapter(Query)


def api_app(
    commands: CommandBus, queries: QueryBus, problems: Problems, metrics: ApiMetrics, *routers: APIRouter
) -> FastAPI:
    """The application, with the routes of these routers beside its own; the buses stay their owner's."""
    app = FastAPI(title="spanfold", openapi_url=None)
    add_health(app, problems)
    add_metrics(app, metrics.registry)
    for router in routers:
        app.include_router(router)

    @app.post("/commands")
    async def send_command(request: Request) -> Response:
        async def send() -> dict[str, Any]:
            command = envelope(await json_object(request.stream()), Command, _COMMANDS)
            return {"command_id": command.command_id, **_as_object(await commands.send(command))}

        return await _answer(send, commands.handled)

    @app.post("/queries")
    async def ask_query(request: Request) -> Response:
        async def ask() -> dict[str, Any]:
            query = envelope(await json_object(request.stream()), Query, _QUERIES)
            return {"query_id": query.query_id, **_as_object(await queries.ask(query))}

        return await _answer(ask, queries.handled)

    @app.exception_handler(HTTPException)
    async def no_such_route(_: Request, error: HTTPException) -> JSONResponse:
        status = HTTPStatus(error.status_code)
        return problem(status, status.phrase, ROUTES)

    return app


def envelope(document: Mapping[str, Any], kind: type[E], adapter: TypeAdapter[E]) -> E:
    """The envelope that a JSON object describes. InvalidInput names each field that is unknown, missing or wrong: a
    misspelt command_id must not become a new one.
    """
    name = kind.__name__
    refuse_unknown(document, [field.name for field in fields(kind)], name)
    required = [field.name for field in fields(kind) if field.default is MISSING and field.default_factory is MISSING]
    refuse_missing(document, required, name)
    try:
        return adapter.validate_python(dict(document))
    except ValidationError as error:
        wrong = (f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors(include_url=False))
        raise InvalidInput(f"{name}: {'; '.join(wrong)}") from error


async def _answer(handle: Callable[[], Awaitable[dict[str, Any]]], known: tuple[str, ...]) -> Response:
    try:
        return Response(orjson.dumps(await handle()), media_type="application/json")
    except SpanfoldError as error:
        return problem_of(error, known)


def _as_object(result: Any) -> dict[str, Any]:
    """A handler's result as an object: its fields where it has any, else as `result`."""
    value = plain(result)
    return value if isinstance(value, dict) else {"result": value}
