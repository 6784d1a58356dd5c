"""The command bus and the query bus: one handler per type of message, and middleware around all handlers.

bus = CommandBus(timing(observe), validating, retrying())
bus.register_aggregate(ServiceAggregate, store)
await bus.send(RegisterService(aggregate_id="cart-1", …))          # or the envelope: Command(command_type="RegisterService", …)
"""

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import fields
from functools import reduce
from typing import Any, Generic, TypeVar, overload

import structlog

from spanfold.application.aggregates.base import Aggregate
from spanfold.application.domain.ids import Id
from spanfold.application.event_store import EventStore
from spanfold.application.execution import Executed, Retry, attempt
from spanfold.application.messages import (
    Answer,
    Command,
    DomainCommand,
    DomainQuery,
    MessageTypes,
    Query,
    command_of,
    query_of,
)
from spanfold.language.errors import InvalidInput
from spanfold.language.json_values import tags, text

M = TypeVar("M", bound=DomainCommand | DomainQuery[Any])
C = TypeVar("C", bound=DomainCommand)
Q = TypeVar("Q", bound=DomainQuery[Any])
R = TypeVar("R")

Next = Callable[[Any], Awaitable[Any]]
"""The next middleware, or the handler: takes the message, returns the handler's result."""

Middleware = Callable[[Any, Next], Awaitable[Any]]
"""Takes a message and what comes next. The first middleware of a bus is the outermost."""

log = structlog.get_logger("spanfold.buses")


class _Bus(Generic[M]):
    def __init__(self, kind: str, middleware: tuple[Middleware, ...]) -> None:
        self._types: MessageTypes[M] = MessageTypes(kind)
        self._handlers: dict[str, Next] = {}
        self._middleware = middleware

    @property
    def handled(self) -> tuple[str, ...]:
        """The names of the message types that have a handler."""
        return tuple(sorted(self._types))

    def _add(self, message_type: type[M], handler: Next) -> None:
        self._types.add(message_type)
        self._handlers[message_type.__name__] = reduce(_around, reversed(self._middleware), handler)

    async def _dispatch(self, message: M) -> Any:
        name = type(message).__name__
        self._types.refuse_unknown(name)
        return await self._handlers[name](message)


class CommandBus(_Bus[DomainCommand]):
    """Dispatches commands to their handlers. Tasks of one event loop can share it."""

    def __init__(self, *middleware: Middleware) -> None:
        super().__init__("command", middleware)

    def register(self, command_type: type[C], handler: Callable[[C], Awaitable[Any]]) -> None:
        """Send commands of this type to this handler. InvalidInput when the type already has one."""
        self._add(command_type, handler)

    def register_aggregate(self, aggregate_type: type[Aggregate[Any]], store: EventStore) -> None:
        """Handle all commands of the aggregate by appending its events to the store; send() then returns Executed. After a
        Conflict a command is tried again if `retrying` is among the middleware.
        """

        async def handler(command: DomainCommand) -> Executed:
            return await attempt(store, aggregate_type, command)

        for command_type in aggregate_type.commands:
            self.register(command_type, handler)

    async def send(self, command: DomainCommand | Command) -> Any:
        """The handler's result. UnknownMessage when the type has no handler, InvalidInput when an envelope's data do not fit its
        type, and whatever the handler raises.
        """
        return await self._dispatch(command_of(command, self._types) if isinstance(command, Command) else command)


class QueryBus(_Bus[DomainQuery[Any]]):
    """Dispatches queries to their handlers. Tasks of one event loop can share it."""

    def __init__(self, *middleware: Middleware) -> None:
        super().__init__("query", middleware)

    def register(self, query_type: type[Q], handler: Callable[[Q], Awaitable[Answer[Any]]]) -> None:
        """Send queries of this type to this handler. InvalidInput when the type already has one."""
        self._add(query_type, handler)

    @overload
    async def ask(self, query: Query) -> Answer[Any]: ...

    @overload
    async def ask(self, query: DomainQuery[R]) -> Answer[R]: ...

    async def ask(self, query: DomainQuery[R] | Query) -> Answer[R]:
        """The handler's answer. UnknownMessage when the type has no handler, InvalidInput when an envelope's data do not fit its
        type, and whatever the handler raises.
        """
        answer: Answer[R] = await self._dispatch(query_of(query, self._types) if isinstance(query, Query) else query)
        return answer


def retrying(retry: Retry | None = None) -> Middleware:
    """Middleware that tries commands again after a Conflict, each time as `again()`, under a new event id."""
    policy = retry or Retry()

    async def middleware(command: DomainCommand, forward: Next) -> Any:
        return await policy.run(command, forward)

    return middleware


def timing(observe: Callable[[str, float, str], None] | None = None) -> Middleware:
    """Middleware that calls `observe(type, seconds, outcome)` for every message; the outcome is ok or the name of the error. By
    default they are logged at level debug.
    """

    def log_it(message_type: str, seconds: float, outcome: str) -> None:
        log.debug("handled", message=message_type, seconds=round(seconds, 6), outcome=outcome)

    report = observe or log_it

    async def middleware(message: Any, forward: Next) -> Any:
        began, outcome = time.perf_counter(), "ok"
        try:
            return await forward(message)
        except BaseException as error:
            outcome = type(error).__name__
            raise
        finally:
            report(type(message).__name__, time.perf_counter() - began, outcome)

    return middleware


async def validating(message: Any, forward: Next) -> Any:
    """Middleware. InvalidInput names the first field that can't be stored: an aggregate id that can't be a key, or text or tags
    that Postgres can't hold.
    """
    for message_field in fields(message):
        name, value = message_field.name, getattr(message, message_field.name)
        if name == "aggregate_id":
            Id(value)
        elif isinstance(value, str):
            text(value, name)
        elif isinstance(value, Mapping):
            tags(dict(value), name)
    return await forward(message)


def validate_with(*rules: Callable[[Any], str | None]) -> Middleware:
    """Middleware with rules that return what is wrong with a message, or None. The first complaint is raised as InvalidInput."""

    async def middleware(message: Any, forward: Next) -> Any:
        complaint = next(filter(None, (rule(message) for rule in rules)), None)
        if complaint:
            raise InvalidInput(f"{type(message).__name__}: {complaint}")
        return await forward(message)

    return middleware


def _around(inner: Next, middleware: Middleware) -> Next:
    async def handler(message: Any) -> Any:
        return await middleware(message, inner)

    return handler
