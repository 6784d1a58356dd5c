"""The query bus over a real Postgres."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from projections.queries import Reader, register
from projections.queries.reader import WAIT_S
from spanfold.buses import Middleware, QueryBus
from spanfold.dsn import postgres_dsn
from spanfold.settings import Settings, settings


@asynccontextmanager
async def query_bus(
    found: Settings | None = None, *middleware: Middleware, wait_s: float = WAIT_S
) -> AsyncIterator[QueryBus]:
    """A bus that answers all of spanfold.queries.QUERIES from the read models in Postgres, until the block ends.

    async with query_bus() as bus:
        answer = await bus.ask(GetTrace(trace_id="order-4711"))

    `wait_s` bounds how long a query waits for the positions that it must reflect. Misconfigured when no Postgres is named.
    """
    async with reader_of(found or settings(), wait_s=wait_s) as reader:
        yield query_bus_of(reader, *middleware)


def query_bus_of(reader: Reader, *middleware: Middleware) -> QueryBus:
    """A bus that asks this reader."""
    bus = QueryBus(*middleware)
    register(bus, reader)
    return bus


def reader_of(found: Settings, *, wait_s: float = WAIT_S) -> Reader:
    """What asks the read models of these settings; it is opened with `async with`."""
    return Reader(postgres_dsn(found), wait_s=wait_s)
