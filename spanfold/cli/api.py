"""`spanfold api`: commands and queries over HTTP."""

import asyncio
import logging
from typing import Annotated

import typer

from producers.otlp.broker import Broker
from spanfold.cli.output import notices
from spanfold.cli.stack import Home, chosen_settings, running_settings
from spanfold.process_urls import leave_url
from spanfold.settings import Settings, settings
from spanfold.wiring.commands import command_bus
from spanfold.wiring.event_store import event_store
from spanfold.wiring.http import api_app
from spanfold.wiring.metrics import ApiMetrics
from spanfold.wiring.queries import query_bus_of, reader_of
from spanfold.wiring.serving import serve


def api(
    home: Home = None,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on. Default: SPANFOLD_API_HOST, else 127.0.0.1.")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Port; 0 takes any. Default: SPANFOLD_API_PORT, else 4380."),
    ] = None,
) -> None:
    """Take commands and queries over HTTP, until SIGTERM or Ctrl-C.

    POST /commands carries out the commands of every installed aggregate, POST /queries asks the read models; /healthz and
    /metrics tell how it is. It has no authentication of its own. See docs/write-side.md.

    Example: spanfold api --port 4380
    """
    found = running_settings(chosen_settings(home))
    logging.basicConfig(level=settings().log_level)
    asyncio.run(_run(found, host or found.api_host, found.api_port if port is None else port))


async def _run(found: Settings, host: str, port: int) -> None:
    metrics, broker = ApiMetrics(), Broker(found)
    async with event_store(found) as store, reader_of(found) as reader:
        commands = command_bus(store, metrics.observing("command"))
        queries = query_bus_of(reader, metrics.observing("query"))

        async def problems() -> list[str]:
            of_kafka, of_postgres = await asyncio.gather(asyncio.to_thread(broker.problems), reader.problems())
            return [*of_kafka, *of_postgres]

        def started(url: str) -> None:
            leave_url(found.home, url)
            notices().print(f"commands at {url}/commands, queries at {url}/queries", soft_wrap=True)

        await serve(api_app(commands, queries, problems, metrics), host, port, started)
