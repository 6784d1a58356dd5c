"""The command bus and the query bus: one handler for each type of message, and middleware around all of them.

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
"""The rest of the way to the handler: takes the message, returns what the handler returns."""

Middleware = Callable[[Any, Next], Awaitable[Any]]
"""Takes a message and the rest of its way; the first one that a bus is given is the outermost."""

log = structlog.get_logger("spanfold.buses")


class _Bus(Generic[M]):
    def __init__(self, kind: str, middleware: tuple[Middleware, ...]) -> None:
        self._types: MessageTypes[M] = MessageTypes(kind)
        self._handlers: dict[str, Next] = {}
        self._middleware = middleware

    @property
    def handled(self) -> tuple[str, ...]:
        """The names of the types that have a handler."""
        return tuple(sorted(self._types))

    def _add(self, message_type: type[M], handler: Next) -> None:
        self._types.add(message_type)
        self._handlers[message_type.__name__] = reduce(_around, reversed(self._middleware), handler)

    async def _dispatch(self, message: M) -> Any:
        name = type(message).__name__
        self._types.refuse_unknown(name)
        return await self._handlers[name](message)


class CommandBus(_Bus[DomainCommand]):
    """Carries commands to their handlers. Safe to share between tasks of one event loop."""

    def __init__(self, *middleware: Middleware) -> None:
        super().__init__("command", middleware)

    def register(self, command_type: type[C], handler: Callable[[C], Awaitable[Any]]) -> None:
        """From now on commands of this type go to this handler. InvalidInput when there is one already."""
        self._add(command_type, handler)

    def register_aggregate(self, aggregate_type: type[Aggregate[Any]], store: EventStore) -> None:
        """Carry out all commands of the aggregate on it, appending to the store; send() then returns Executed. After a
        Conflict they are tried again where `retrying` is among the middleware.
        """

        async def handler(command: DomainCommand) -> Executed:
            return await attempt(store, aggregate_type, command)

        for command_type in aggregate_type.commands:
            self.register(command_type, handler)

    async def send(self, command: DomainCommand | Command) -> Any:
        """What the handler returns. UnknownMessage when nobody handles the type, InvalidInput when an envelope's data are not
        those of its type, and whatever the handler raises.
        """
        return await self._dispatch(command_of(command, self._types) if isinstance(command, Command) else command)


class QueryBus(_Bus[DomainQuery[Any]]):
    """Carries queries to their handlers. Safe to share between tasks of one event loop."""

    def __init__(self, *middleware: Middleware) -> None:
        super().__init__("query", middleware)

    def register(self, query_type: type[Q], handler: Callable[[Q], Awaitable[Answer[Any]]]) -> None:
        """From now on queries of this type go to this handler. InvalidInput when there is one already."""
        self._add(query_type, handler)

    @overload
    async def ask(self, query: Query) -> Answer[Any]: ...

    @overload
    async def ask(self, query: DomainQuery[R]) -> Answer[R]: ...

    async def ask(self, query: DomainQuery[R] | Query) -> Answer[R]:
        """The handler's answer. UnknownMessage when nobody handles the type, InvalidInput when an envelope's data are not
        those of its type, and whatever the handler raises.
        """
        answer: Answer[R] = await self._dispatch(query_of(query, self._types) if isinstance(query, Query) else query)
        return answer


def retrying(retry: Retry | None = None) -> Middleware:
    """Commands are tried again after a Conflict, each time as `again()`, which appends under a new event id."""
    policy = retry or Retry()

    async def middleware(command: DomainCommand, forward: Next) -> Any:
        return await policy.run(command, forward)

    return middleware


def timing(observe: Callable[[str, float, str], None] | None = None) -> Middleware:
    """`observe(type, seconds, outcome)` is told of every message; the outcome is ok or the name of the error. Without it
    they are logged at level debug.
    """

    def log_it(message_type: str, seconds: float, outcome: str) -> None:
        log.debug("handled", message=message_type, seconds=round(seconds, 6), outcome=outcome)

    tell = observe or log_it

    async def middleware(message: Any, forward: Next) -> Any:
        began, outcome = time.perf_counter(), "ok"
        try:
            return await forward(message)
        except BaseException as error:
            outcome = type(error).__name__
            raise
        finally:
            tell(type(message).__name__, time.perf_counter() - began, outcome)

    return middleware


async def validating(message: Any, forward: Next) -> Any:
    """Middleware: InvalidInput names the first field that could not be kept: an aggregate id that is no key, a text or a
    tag that Postgres can't hold.
    """
    for each in fields(message):
        value = getattr(message, each.name)
        if each.name == "aggregate_id":
            Id(value)
        elif isinstance(value, str):
            text(value, each.name)
        elif isinstance(value, Mapping):
            tags(dict(value), each.name)
    return await forward(message)


def validate_with(*rules: Callable[[Any], str | None]) -> Middleware:
    """Each rule says what is wrong with a message, or None; the first complaint is raised as InvalidInput."""

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
