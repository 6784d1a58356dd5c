"""Operations over HTTP: a function is a route under /operations, its parameters are the fields of the request.

GET takes the fields from the query string, POST from a JSON object; a parameter that is a dataclass gives its fields. The
answer is the result as one JSON object. A function with a parameter `progress` may take long: its answer is JSON lines
(application/x-ndjson), one for each report and a last one with `result` or `problem`. When the client goes away, such a function
is ended at its next report, as Ctrl-C ends a command. Errors are those of problems.py; before the first line they are the answer.
"""

import asyncio
import inspect
import logging
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from functools import partial
from typing import Any, Final, Literal, get_type_hints

import orjson
from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, ValidationError, create_model
from pydantic import Field as ModelField

from spanfold.http.body_limits import UnsupportedMediaType, json_object
from spanfold.http.json_results import plain
from spanfold.http.problems import problem_of
from spanfold.language.errors import InvalidInput, SpanfoldError

AT_ONCE: Final = 8
"""So many operations without progress are carried out at a time; the others wait."""

PROGRESS: Final = "progress"

log = logging.getLogger("spanfold.api")


@dataclass(frozen=True, slots=True)
class Operation:
    """A function, and the method by which it is called: GET for those that only read."""

    method: Literal["GET", "POST"]
    run: Callable[..., Any]


class Abandoned(Exception):
    """The client has gone: nobody reads what a function reports."""


def operations_router(operations: Mapping[str, Operation]) -> APIRouter:
    """A route /operations/NAME for each operation, and GET /operations, which describes the fields of all of them."""
    router = APIRouter(prefix="/operations")
    executor = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="spanfold-operation")
    forms = {name: _Form(name, operation.run) for name, operation in operations.items()}

    @router.get("")
    async def show_operations() -> Response:
        descriptions = {
            name: {
                "method": operations[name].method,
                "streams": form.streams,
                "request": form.model.model_json_schema(),
            }
            for name, form in forms.items()
        }
        return _json(descriptions)

    for name, operation in operations.items():
        answer = partial(_answer, forms[name], operation.run, executor)
        router.add_api_route(f"/{name}", answer, methods=[operation.method], response_model=None)
    return router


async def _answer(form: "_Form", run: Callable[..., Any], executor: ThreadPoolExecutor, request: Request) -> Response:
    try:
        _refuse_forms(request)
        given = dict(request.query_params) if request.method == "GET" else await json_object(request.stream())
        arguments = form.arguments(given)
        if form.streams:
            return await _streamed(run, arguments)
        result = await asyncio.get_running_loop().run_in_executor(executor, partial(run, **arguments))
    except SpanfoldError as error:
        return problem_of(error)
    return _json(plain(result))


def _refuse_forms(request: Request) -> None:
    """Any web page that somebody opens on this machine can send a form or plain text here."""
    if request.method == "POST" and not request.headers.get("content-type", "").startswith("application/json"):
        raise UnsupportedMediaType("send the fields as JSON, with Content-Type: application/json")


def _json(value: Any) -> Response:
    return Response(orjson.dumps(value, default=str), media_type="application/json")


class _Form:
    """The fields of a function's request."""

    def __init__(self, name: str, run: Callable[..., Any]) -> None:
        signature = inspect.signature(run)
        types = get_type_hints(run.func if isinstance(run, partial) else run)
        self.streams = PROGRESS in signature.parameters
        self._parameters = {parameter: types[parameter] for parameter in signature.parameters if parameter != PROGRESS}
        definitions: dict[str, Any] = {}
        for parameter, kind in self._parameters.items():
            if is_dataclass(kind):
                hints = get_type_hints(kind)
                definitions |= {field.name: (hints[field.name], _default(field)) for field in fields(kind)}
            else:
                default = signature.parameters[parameter].default
                definitions[parameter] = (kind, ... if default is inspect.Parameter.empty else default)
        self.model: type[BaseModel] = create_model(name, __config__=ConfigDict(extra="forbid"), **definitions)

    def arguments(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The function's arguments. InvalidInput names each field that is unknown, missing or wrong."""
        try:
            values = dict(self.model.model_validate(given))
        except ValidationError as error:
            wrong = (f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors(include_url=False))
            raise InvalidInput("; ".join(wrong)) from error
        return {parameter: _argument(parameter, kind, values) for parameter, kind in self._parameters.items()}


def _argument(parameter: str, kind: Any, values: Mapping[str, Any]) -> Any:
    if is_dataclass(kind) and isinstance(kind, type):
        return kind(**{field.name: values[field.name] for field in fields(kind)})
    return values[parameter]


def _default(field: "Field[Any]") -> Any:
    if field.default_factory is not MISSING:
        return ModelField(default_factory=field.default_factory)
    return ... if field.default is MISSING else field.default


async def _streamed(run: Callable[..., Any], arguments: dict[str, Any]) -> Response:
    """The answer of a function with progress, once it has reported something or ended."""
    lines = _Lines(asyncio.get_running_loop())
    threading.Thread(target=lines.carry_out, args=(run, arguments), name="spanfold-operation", daemon=True).start()
    first = await lines.queue.get()
    if isinstance(first, SpanfoldError):
        return problem_of(first)
    return StreamingResponse(lines.read(first), media_type="application/x-ndjson")


class _Lines:
    """What a function in a thread reports, on its way to the client; a ProgressListener."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.queue: asyncio.Queue[dict[str, Any] | SpanfoldError] = asyncio.Queue()
        self._loop = loop
        self._abandoned = threading.Event()

    def step(self, text: str) -> None:
        self._report({"step": text})

    def advanced(self, done: int, total: int, unit: str) -> None:
        self._report({"done": done, "total": total, "unit": unit})

    def waiting(self, holders: Sequence[str]) -> None:
        self._report({"waiting_for": list(holders)})

    def carry_out(self, run: Callable[..., Any], arguments: dict[str, Any]) -> None:
        """Call the function; its result or its error is the last line."""
        try:
            self._put({"result": plain(run(**arguments, progress=self))})
        except Abandoned:
            log.warning("%s was ended: its client has gone", getattr(run, "func", run).__name__)
        except SpanfoldError as error:
            self._put(error)
        except Exception as error:
            log.exception("an operation failed")
            self._put(SpanfoldError(f"unexpected {type(error).__name__}, see the log of the API process"))

    async def read(self, first: dict[str, Any] | SpanfoldError) -> AsyncIterator[bytes]:
        """The lines, from this first one on."""
        line = first
        try:
            while True:
                last = isinstance(line, SpanfoldError) or "result" in line
                yield _line(line)
                if last:
                    return
                line = await self.queue.get()
        finally:
            self._abandoned.set()

    def _report(self, line: dict[str, Any]) -> None:
        if self._abandoned.is_set():
            raise Abandoned
        self._put(line)

    def _put(self, line: dict[str, Any] | SpanfoldError) -> None:
        try:
            self._loop.call_soon_threadsafe(self.queue.put_nowait, line)
        except RuntimeError as error:  # the loop has ended, with the process
            raise Abandoned from error


def _line(line: dict[str, Any] | SpanfoldError) -> bytes:
    if isinstance(line, SpanfoldError):
        line = {"problem": orjson.Fragment(bytes(problem_of(line).body))}
    return orjson.dumps(line, default=str) + b"\n"
