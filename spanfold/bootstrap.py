"""The composition root: every process and every client of spanfold is put together here, from settings.

| function                                                   | what it makes                                    |
|------------------------------------------------------------|--------------------------------------------------|
| event_store, command_bus, query_bus, telemetry_repository  | what an application uses, in its own process     |
| installation                                               | what the functions of spanfold.operations take   |
| running_stack                                              | Kafka, Postgres and all processes, on one machine |
| run_projector, run_snapshot_worker                         | the workers                                      |
| serve_otlp                                                 | the OTLP/HTTP door                               |
| serve_api                                                  | commands, queries and operations over HTTP       |

Imports are inside the functions, so that a process loads only what it runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal

from spanfold.language.settings import Settings
from spanfold.language.settings import settings as environment_settings

if TYPE_CHECKING:
    from spanfold.adapters.event_store import KafkaEventStore
    from spanfold.adapters.telemetry_repository import KafkaTelemetryRepository
    from spanfold.application.buses import CommandBus, Middleware, QueryBus
    from spanfold.application.event_store import EventStore
    from spanfold.embedded.stack import EmbeddedStack
    from spanfold.http.operations import Operation
    from spanfold.language.progress import ProgressListener
    from spanfold.language.topics import TopicOnBroker
    from spanfold.operations.installation import Installation
    from spanfold.projections.queries import Reader

TIMEOUT_S: Final = 30.0
"""Bounds a call of the event store."""

QUERY_WAIT_S: Final = 10.0
"""Bounds how long a query waits for the positions that it must reflect."""

API_FINISH_S: Final = 45
"""How long requests in flight may take when the API is told to stop: longer than an append or a query waits."""


@asynccontextmanager
async def event_store(
    settings: Settings | None = None, *, timeout_s: float = TIMEOUT_S
) -> AsyncIterator[KafkaEventStore]:
    """An event store on Kafka and Postgres, until the block ends.

    async with event_store() as store:
        await store.append_event(event, NO_STREAM)

    Misconfigured when no Kafka or no Postgres is named.
    """
    from spanfold.adapters.event_store import SENDING_SHARE, KafkaEventStore
    from spanfold.postgres.dsn import postgres_dsn
    from spanfold.postgres.pool import Postgres
    from spanfold.producers.appender import Appender

    chosen = settings or environment_settings()
    async with (
        Appender(chosen, timeout_s=SENDING_SHARE * timeout_s) as appender,
        Postgres(postgres_dsn(chosen)) as postgres,
    ):
        yield KafkaEventStore(chosen, postgres, appender, timeout_s)


def installation(settings: Settings | None = None) -> Installation:
    """What operations work on: the servers of these settings, else those of the stack that runs on their home.

    report = erase(installation(), "4bf92f3577b34da6a3ce929d0e0e4736", why="ticket 4711")
    """
    from spanfold.operations.installation import Installation, environment_settings

    return Installation.of(settings or environment_settings())


@asynccontextmanager
async def telemetry_repository(
    settings: Settings | None = None, *, source: str = "spanfold", timeout_s: float = TIMEOUT_S
) -> AsyncIterator[KafkaTelemetryRepository]:
    """A repository of traces with an event store of its own, until the block ends; see event_store()."""
    from spanfold.adapters.telemetry_repository import KafkaTelemetryRepository

    async with event_store(settings, timeout_s=timeout_s) as store:
        yield KafkaTelemetryRepository(store, source=source, timeout_s=timeout_s)


def command_bus(store: EventStore, *middleware: Middleware) -> CommandBus:
    """A bus that carries out every command of every installed aggregate, appending to this store. What can't be kept is
    refused, and conflicts are retried; `middleware` sees each command first.
    """
    from spanfold.application.aggregates import installed_aggregates
    from spanfold.application.buses import CommandBus, retrying, validating

    bus = CommandBus(*middleware, validating, retrying())
    for aggregate in installed_aggregates().values():
        bus.register_aggregate(aggregate, store)
    return bus


@asynccontextmanager
async def query_bus(
    settings: Settings | None = None, *middleware: Middleware, wait_s: float = QUERY_WAIT_S
) -> AsyncIterator[QueryBus]:
    """A bus that answers all queries of spanfold.application.queries from the read models in Postgres, until the block ends.

    async with query_bus() as bus:
        answer = await bus.ask(GetTrace(trace_id="order-4711"))

    `wait_s` bounds how long a query waits for the positions that it must reflect. Misconfigured when no Postgres is named.
    """
    async with query_reader(settings, wait_s=wait_s) as opened:
        yield query_bus_of(opened, *middleware)


def query_bus_of(reader: Reader, *middleware: Middleware) -> QueryBus:
    """A bus that asks this reader."""
    from spanfold.application.buses import QueryBus
    from spanfold.projections.queries import register

    bus = QueryBus(*middleware)
    register(bus, reader)
    return bus


def query_reader(settings: Settings | None = None, *, wait_s: float = QUERY_WAIT_S) -> Reader:
    """What asks the read models of these settings; open it with `async with`."""
    from spanfold.postgres.dsn import postgres_dsn
    from spanfold.projections.queries import Reader

    return Reader(postgres_dsn(settings or environment_settings()), wait_s=wait_s)


def run_projector(settings: Settings) -> None:
    """Wait for Kafka and Postgres, then fold into the read models until SIGTERM or SIGINT. Ends the process: exit code 0 when
    it was told to stop, 1 on an error that nobody foresaw. Raises the SpanfoldError that ended it.
    """
    from spanfold.embedded.process_ends import own_problems
    from spanfold.projections.commit.store import Store
    from spanfold.projections.projection import installed
    from spanfold.stream_processors.worker import process
    from spanfold.stream_processors.worker.committer import Committer
    from spanfold.stream_processors.worker.lag_watch import Watch
    from spanfold.stream_processors.worker.metrics import Metrics
    from spanfold.stream_processors.worker.projector import projector_app

    dsn, topics = process.begin(settings)
    store = Store(installed(), merge_timeout_s=settings.merge_timeout_s, parked_share_limit=settings.parked_share_limit)
    metrics = Metrics(topic.topic.name for topic in topics.values())
    committer = Committer(dsn, store, metrics)
    app = projector_app(settings, store, committer, topics, metrics)
    watch = Watch(settings, dsn, topics.values(), store, metrics)
    process.run(settings, app, watch, partial(own_problems, settings.home))


def run_snapshot_worker(settings: Settings) -> None:
    """The same for the snapshot worker, which folds what the projectors have judged into states of aggregates."""
    from spanfold.embedded.process_ends import own_problems
    from spanfold.projections.states import StateStore
    from spanfold.stream_processors.snapshots.app import foldings, snapshots_app
    from spanfold.stream_processors.snapshots.feeder import Feeder
    from spanfold.stream_processors.worker import process, waiting
    from spanfold.stream_processors.worker.committer import Committer
    from spanfold.stream_processors.worker.lag_watch import Watch
    from spanfold.stream_processors.worker.metrics import Metrics

    dsn, topics = process.begin(settings)
    store = StateStore(foldings(settings))
    topics = {name: topic for name, topic in topics.items() if topic.topic in store.topics}
    metrics = Metrics(topics)
    committer = Committer(dsn, store, metrics, "spanfold snapshots")
    waiting.patiently_on(dsn, store.register)
    watch = Watch(settings, dsn, topics.values(), store, metrics)
    app = snapshots_app(settings, store, committer, topics, metrics)
    waiting.await_snapshots_topic(settings)
    with Feeder(settings, dsn, topics.values(), store, watch):
        process.run(settings, app, watch, partial(own_problems, settings.home))


@contextmanager
def running_stack(
    settings: Settings,
    *,
    workers: int = 1,
    ephemeral: bool = False,
    ports: Mapping[str, int] | None = None,
    progress: ProgressListener | None = None,
    notify: Callable[[str], None] = print,
) -> Iterator[EmbeddedStack]:
    """A stack whose topics and tables are there and whose `workers` projectors own every partition, with the snapshot worker
    and OTLP's front door; stopped at the end.

    Servers that the settings name are used, the others started, on these `ports` (kafka, postgres). `notify` gets a line about
    each projection that waits for a rebuild, and each program that is not ready. Raises what EmbeddedStack.start does.

    On a home where no stack has ever been ready, it also raises what keeps topics and tables from being prepared, and
    Misconfigured when a program refuses its configuration. On any other, servers and OTLP start whatever else is wrong.
    """
    from spanfold.embedded.stack import EmbeddedStack
    from spanfold.language.errors import Misconfigured
    from spanfold.language.progress import NO_PROGRESS
    from spanfold.operations.installation import Installation
    from spanfold.operations.retention import pruned_regularly
    from spanfold.operations.stack import otlp_program, settings_of, worker_programs

    progress, stack = progress or NO_PROGRESS, EmbeddedStack.from_settings(settings, ephemeral=ephemeral, ports=ports)
    stack.start(progress)
    try:
        running = settings_of(stack.state, settings)
        progress.step("preparing topics and tables")
        topics = _prepared(Installation(running, stack.state), notify, may_wait=stack.was_ready)
        progress.step("starting the workers and OTLP")
        for program in stack.launch(*worker_programs(running, workers, topics), otlp_program(running)):
            if program.is_configuration_error and not stack.was_ready:
                raise Misconfigured(f"{program.problem}. Its log: {stack.state.logs / program.name}.log")
            notify(f"{program.problem}; it is started again until it works")
        with pruned_regularly(stack.state.home):
            yield stack
    finally:
        stack.stop()


def _prepared(target: Installation, notify: Callable[[str], None], *, may_wait: bool) -> list[TopicOnBroker]:
    """The topics, once topics and tables are prepared. On a home that has worked before, whatever prevents it does not keep
    servers and OTLP from starting: the workers try again, and say why they can't.
    """
    try:
        return list(target.prepare(notify).values())
    except Exception as error:  # also what the code of an installed package raises
        if not may_wait:
            raise
        notify(f"topics and tables are not prepared, the workers try again: {error}")
        return []


def serve_otlp(settings: Settings, host: str, port: int, started: Callable[[str], None]) -> None:
    """Serve OTLP/HTTP until SIGTERM or SIGINT; then requests in flight are finished, and it returns.

    `started` is given the URL, without a slash at its end; port 0 takes any. Misconfigured when no Kafka is named, or the
    address can't be had. Kafka need not be there.
    """
    from spanfold.http.server import run
    from spanfold.http.sockets import listening
    from spanfold.kafka.broker import Broker
    from spanfold.producers.otlp.app import otlp_app
    from spanfold.producers.otlp.intake import FINISH_S, otlp_publisher

    remedy = "Give another --port, or set SPANFOLD_OTLP_PORT"
    with otlp_publisher(settings) as publisher, listening(host, port, "OTLP", remedy) as address:
        run(otlp_app(publisher, Broker(settings)), address, FINISH_S, started)


def serve_api(settings: Settings, host: str, port: int, started: Callable[[str], None]) -> None:
    """Serve commands and queries over HTTP until SIGTERM or SIGINT; as serve_otlp()."""
    asyncio.run(_serve_api(settings, host, port, started))


async def _serve_api(settings: Settings, host: str, port: int, started: Callable[[str], None]) -> None:
    from spanfold.http.api import api_app
    from spanfold.http.api_metrics import ApiMetrics
    from spanfold.http.operations import operations_router
    from spanfold.http.server import serve
    from spanfold.http.sockets import listening
    from spanfold.kafka.broker import Broker

    metrics, broker = ApiMetrics(), Broker(settings)
    remedy = "Give another --port, or set SPANFOLD_API_PORT"
    async with event_store(settings) as store, query_reader(settings) as opened:
        commands = command_bus(store, metrics.observing("command"))
        queries = query_bus_of(opened, metrics.observing("query"))

        async def problems() -> list[str]:
            of_kafka, of_postgres = await asyncio.gather(asyncio.to_thread(broker.problems), opened.problems())
            return [*of_kafka, *of_postgres]

        operations = operations_router(http_operations(installation(settings)))
        app = api_app(commands, queries, problems, metrics, operations)
        with listening(host, port, "the API", remedy) as address:
            await serve(app, address, API_FINISH_S, started)


def http_operations(target: Installation) -> dict[str, Operation]:
    """The operations that the API offers under /operations, by name."""
    from spanfold.http.operations import Operation
    from spanfold.operations import parked, past, rebuilding
    from spanfold.operations.doctor import diagnose
    from spanfold.operations.erasure import erase
    from spanfold.operations.generations import list_generations
    from spanfold.operations.migrating import migrate
    from spanfold.operations.pruning import prune
    from spanfold.operations.publishing import publish
    from spanfold.operations.resuming import resume
    from spanfold.operations.snapshots import take_snapshots
    from spanfold.operations.status import read_status
    from spanfold.operations.trace import read_trace
    from spanfold.operations.workers import restart_workers

    operations: dict[str, tuple[Literal["GET", "POST"], Callable[..., Any]]] = {
        "status": ("GET", read_status),
        "doctor": ("GET", diagnose),
        "trace": ("GET", read_trace),
        "erase": ("POST", erase),
        "publish": ("POST", publish),
        "parked": ("GET", parked.list_parked),
        "parked/show": ("GET", parked.show_parked),
        "parked/retry": ("POST", parked.retry_parked),
        "parked/discard": ("POST", parked.discard_parked),
        "snapshot": ("POST", take_snapshots),
        "projections": ("GET", list_generations),
        "projections/drop-previous": ("POST", rebuilding.drop_previous),
        "verify": ("POST", rebuilding.verify),
        "rebuild": ("POST", rebuilding.rebuild),
        "rebuild/preview": ("GET", rebuilding.preview_rebuild),
        "rebuild/abort": ("POST", rebuilding.abort_rebuild),
        "rollback": ("POST", rebuilding.rollback),
        "resume": ("POST", resume),
        "as-of": ("POST", past.as_of),
        "as-of/drop": ("POST", past.drop_as_of),
        "prune": ("POST", prune),
        "migrate": ("POST", migrate),
        "workers/restart": ("POST", restart_workers),
    }
    return {name: Operation(method, partial(run, target)) for name, (method, run) in operations.items()}
