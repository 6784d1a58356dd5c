"""`spanfold up` and `spanfold down`: the stack of one machine, in the foreground or beside it."""

from contextlib import ExitStack
from typing import Annotated, Any, Final

import typer
from rich.filesize import decimal

from spanfold.bootstrap import running_stack
from spanfold.cli.options import AsJson, Home, sigterm_interrupts
from spanfold.cli.output import console, notice, notices, print_json, table
from spanfold.cli.progress import screen
from spanfold.embedded.stack_state import StackState
from spanfold.language.settings import Settings
from spanfold.operations.detached import Started, refuse_a_second, report_ready, start_detached, stop_detached
from spanfold.operations.installation import command_line, environment_settings
from spanfold.operations.process_ends import disk_problems, disk_warnings
from spanfold.operations.process_urls import process_urls
from spanfold.operations.retention import described_retention, retention_facts
from spanfold.operations.stack import OTLP, memory_of

EXAMPLE_EVENT: Final = ("--type", "TraceCreated", "--trace-id", "t1", "--service", "shop", "--operation", "GET /cart")


def up(
    home: Home = None,
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Return once everything is ready; leave it running.")
    ] = False,
    ephemeral: Annotated[
        bool, typer.Option("--ephemeral", help="Use a temporary home and remove it at the end.")
    ] = False,
    kafka: Annotated[
        str | None,
        typer.Option(
            envvar="SPANFOLD_KAFKA_BOOTSTRAP", metavar="HOST:PORT", help="Use this Kafka instead of starting one."
        ),
    ] = None,
    postgres: Annotated[
        str | None,
        typer.Option(envvar="SPANFOLD_POSTGRES_DSN", metavar="DSN", help="Use this Postgres instead of starting one."),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Number of projectors; they share the partitions.")] = 1,
    kafka_port: Annotated[
        int | None,
        typer.Option(
            "--kafka-port",
            min=1,
            max=65535,
            help="Port of the Kafka that is started. Default: a free one, the same on every start.",
            show_default=False,
        ),
    ] = None,
    postgres_port: Annotated[
        int | None,
        typer.Option(
            "--postgres-port",
            min=1,
            max=65535,
            help="Port of the Postgres that is started. Default: a free one, the same on every start.",
            show_default=False,
        ),
    ] = None,
    otlp_port: Annotated[
        int | None,
        typer.Option(
            "--otlp-port",
            min=0,
            max=65535,
            help="Port of OTLP/HTTP. Default: SPANFOLD_OTLP_PORT, else 4318; a free one if that is taken.",
            show_default=False,
        ),
    ] = None,
    metrics_port: Annotated[
        int | None,
        typer.Option(
            "--metrics-port",
            min=0,
            max=65535,
            help="Port of the first worker's /metrics and /healthz; the other workers take the next ones. Default: "
            "SPANFOLD_WORKER_PORT, else free ones.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
    notify: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Start Kafka, Postgres and the workers on this machine, without Docker.

    Runs until Ctrl-C or SIGTERM, then stops everything in order. With `--detach` it returns when the workers own their
    partitions. If this process is killed, nothing keeps running.

    A process that ends is started again for as long as the stack runs; the others go on. `spanfold status` says why it ended.
    Exit code 1 of `--detach`: the stack runs, but a worker or OTLP does not get ready.

    Everything listens on 127.0.0.1. Ports: Kafka --kafka-port, Postgres --postgres-port, OTLP/HTTP --otlp-port, the
    workers' /metrics and /healthz --metrics-port. The HTTP API is a separate process: `spanfold api --port 4380`.

    Example: spanfold up --detach --workers 2 --kafka-port 9092 --postgres-port 5432 --otlp-port 4318 --metrics-port 9300
    """
    chosen = environment_settings(
        home=home, kafka_bootstrap=kafka, postgres_dsn=postgres, otlp_port=otlp_port, worker_port=metrics_port
    )
    requested = {"kafka": kafka_port, "postgres": postgres_port}
    ports = {name: port for name, port in requested.items() if port}
    if not ephemeral:
        refuse_a_second(chosen.home)
    if detach:
        with sigterm_interrupts(), screen(steps_in_files=False) as progress:
            started = start_detached(chosen, workers=workers, ephemeral=ephemeral, ports=ports, progress=progress)
        _report(started, chosen, as_json=as_json)
        raise typer.Exit(1 if started.problems else 0)
    with sigterm_interrupts(), ExitStack() as stopping:
        with screen() as progress:
            running = running_stack(
                chosen, workers=workers, ephemeral=ephemeral, ports=ports, progress=progress, notify=notice
            )
            stack = stopping.enter_context(running)
        started = Started(stack.state, [program.problem for program in stack.unready])
        if notify is None:
            _report(started, chosen, as_json=as_json, detached=False)
        else:
            report_ready(notify, started)
        number = stack.wait()
        notices().print(f"{number.name}: stopping")


def down(home: Home = None) -> None:
    """Stop what `spanfold up` started; keep the data.

    Exit code 0 even if nothing was running.

    Example: spanfold down --home /srv/spanfold
    """
    chosen = environment_settings(home=home)
    stopped = stop_detached(chosen.home)
    print(f"Stopped the stack in {chosen.home}." if stopped else f"Nothing is running in {chosen.home}.")


def _report(started: Started, settings: Settings, *, as_json: bool, detached: bool = True) -> None:
    state = started.state
    if as_json:
        print_json({**_facts(state), "retention": retention_facts(settings, state), "problems": started.problems})
        return
    home, urls, memory = state.home, process_urls(state), memory_of(state)
    stop = command_line(home, "down") if detached else f"Ctrl-C, or {command_line(home, 'down')}"
    rows = [
        ("Kafka", state.kafka_bootstrap),
        ("Postgres", state.postgres_dsn),
        ("OTLP", urls.get(OTLP)),
        ("psql", f"{state.psql or 'psql'} {state.postgres_dsn}"),
        ("Logs", str(state.logs)),
        ("Publish", command_line(home, "publish", *EXAMPLE_EVENT)),
        ("Query", command_line(home, "sql", "SELECT * FROM traces LIMIT 10")),
        ("Status", command_line(home, "status")),
        ("Stop", stop),
        *(("Metrics", f"{url}/metrics") for url in urls.values()),
        ("Retention", described_retention(settings, state)),
        ("Memory", f"{decimal(memory.bytes)} ({memory.kind} of all processes)"),
    ]
    console().print(table(("", ""), rows))
    for warning in (*disk_problems(home), *disk_warnings(home)):
        notice(f"! {warning}")
    for problem in started.problems if detached else ():
        notice(f"! {problem}; it is started again until it works")


def _facts(state: StackState) -> dict[str, Any]:
    urls, memory = process_urls(state), memory_of(state)
    return {
        "home": str(state.home),
        "kafka_bootstrap": state.kafka_bootstrap,
        "postgres_dsn": state.postgres_dsn,
        "psql": str(state.psql) if state.psql else None,
        "logs": str(state.logs),
        "pid": state.supervisor.pid,
        "processes": state.pids,
        "otlp_endpoint": urls.get(OTLP),
        "workers": urls,
        f"memory_{memory.kind.lower()}_bytes": memory.bytes,
    }
