"""`spanfold up` and `spanfold down`: the stack of one machine, in the foreground or beside it."""

import os
import subprocess
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import IO, Annotated, Any, Final

import typer

from spanfold.cli.otlp_program import NAME as OTLP
from spanfold.cli.output import console, notices, print_json, table
from spanfold.cli.stack import AsJson, Home, chosen_settings, command_line, running_stack, sigterm_interrupts
from spanfold.cli.worker_urls import worker_urls
from spanfold.embedded import StackState, boot_progress, read_state, stop_running
from spanfold.embedded.errors import HomeInUse
from spanfold.embedded.servers import kafka_jars
from spanfold.language.errors import InvalidInput, SpanfoldError
from spanfold.language.settings import Settings

LAST_BREATH_S: Final = 10.0
EXAMPLE_EVENT: Final = ("--type", "TraceCreated", "--trace-id", "t1", "--service", "shop", "--operation", "GET /cart")


class StartFailed(SpanfoldError):
    """The detached process ended before the stack was ready; `exit_code` is its own."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


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
    as_json: AsJson = False,
    notify: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Start Kafka, Postgres and the workers on this machine, without Docker.

    Runs until Ctrl-C or SIGTERM, then stops everything in order. With `--detach` it returns when the workers own their
    partitions. If this process is killed, nothing keeps running.

    Example: spanfold up --detach --workers 2
    """
    chosen = chosen_settings(home, kafka_bootstrap=kafka, postgres_dsn=postgres)
    if not ephemeral:
        _refuse_a_second(chosen.home)
    if detach:
        _report(_start_detached(chosen, workers=workers, ephemeral=ephemeral), as_json=as_json)
        return
    with running_stack(chosen, workers=workers, ephemeral=ephemeral, console=notices()) as stack:
        if notify is None:
            _report(stack.state, as_json=as_json, detached=False)
        else:
            _notify(notify, stack.state)
        number = stack.wait()
        notices().print(f"{number.name}: stopping")


def down(home: Home = None) -> None:
    """Stop what `spanfold up` started; keep the data.

    Exit code 0 even if nothing was running.

    Example: spanfold down --home /srv/spanfold
    """
    chosen = chosen_settings(home)
    state = read_state(chosen.home)
    supervisor = state.supervisor.process() if state else None
    stopped = stop_running(chosen.home)
    if supervisor:
        supervisor.wait(LAST_BREATH_S)  # it lets go of the home a moment before it ends
    print(f"Stopped the stack in {chosen.home}." if stopped else f"Nothing is running in {chosen.home}.")


def _refuse_a_second(home: Path) -> None:
    if state := read_state(home):
        raise HomeInUse(
            f"a stack is already running in {home} (pid {state.supervisor.pid}), with Kafka at {state.kafka_bootstrap} and"
            f" Postgres at {state.postgres_dsn}. Show it with `{command_line(home, 'status')}`, stop it with"
            f" `{command_line(home, 'down')}`, or choose another --home."
        )


def _report(state: StackState, *, as_json: bool, detached: bool = True) -> None:
    if as_json:
        print_json(_facts(state))
        return
    home = state.home
    stop = command_line(home, "down") if detached else f"Ctrl-C, or {command_line(home, 'down')}"
    rows = [
        ("Kafka", state.kafka_bootstrap),
        ("Postgres", state.postgres_dsn),
        ("OTLP", worker_urls(state).get(OTLP)),
        ("psql", f"{state.psql or 'psql'} {state.postgres_dsn}"),
        ("Logs", str(state.logs)),
        ("Publish", command_line(home, "publish", *EXAMPLE_EVENT)),
        ("Query", command_line(home, "sql", "SELECT * FROM traces LIMIT 10")),
        ("Status", command_line(home, "status")),
        ("Stop", stop),
        *(("Metrics", f"{url}/metrics") for url in worker_urls(state).values()),
    ]
    shown = table(("", ""), rows)
    console().print(shown)


def _facts(state: StackState) -> dict[str, Any]:
    return {
        "home": str(state.home),
        "kafka_bootstrap": state.kafka_bootstrap,
        "postgres_dsn": state.postgres_dsn,
        "psql": str(state.psql) if state.psql else None,
        "logs": str(state.logs),
        "pid": state.supervisor.pid,
        "processes": state.pids,
        "otlp_endpoint": worker_urls(state).get(OTLP),
        "workers": worker_urls(state),
    }


def _start_detached(settings: Settings, *, workers: int, ephemeral: bool) -> StackState:
    """Start `spanfold up` in a session of its own and return once it is ready. Raises StartFailed, or what kafka_jars does."""
    if not settings.kafka_bootstrap:
        with boot_progress(notices()) as progress:  # here, where somebody sees it
            kafka_jars(progress)
    with tempfile.TemporaryFile() if ephemeral else _open_log(settings.home) as log:
        begin = log.seek(0, os.SEEK_END)
        read_end, write_end = os.pipe()
        child = subprocess.Popen(
            [sys.executable, "-m", "spanfold", "up", *_arguments(settings, workers, ephemeral, write_end)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, **_named_servers(settings)},  # not arguments, which other users can read
            pass_fds=[write_end],
            start_new_session=True,
        )
        os.close(write_end)
        home = _await_ready(child, read_end, None if ephemeral else log.name)
        state = read_state(Path(home)) if home else None
        if state is None:
            code = child.wait()
            raise StartFailed(_reason(log, begin, code), code if code > 0 else 1)
        return state


def _open_log(home: Path) -> IO[bytes]:
    logs = home / "logs"
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        logs.mkdir(exist_ok=True)
        return (logs / "up.log").open("a+b")
    except OSError as error:
        raise InvalidInput(f"{home} can't be used as the home: {error.strerror} ({error.filename})") from error


def _arguments(settings: Settings, workers: int, ephemeral: bool, notify: int) -> list[str]:
    given = ["--workers", str(workers), "--notify", str(notify)]
    given += ["--ephemeral"] if ephemeral else ["--home", str(settings.home)]
    return given


def _named_servers(settings: Settings) -> dict[str, str]:
    named = {"SPANFOLD_KAFKA_BOOTSTRAP": settings.kafka_bootstrap, "SPANFOLD_POSTGRES_DSN": settings.postgres_dsn}
    return {name: value for name, value in named.items() if value}


def _await_ready(child: "subprocess.Popen[bytes]", read_end: int, log: object) -> str:
    """The home that the child tells when it is ready; empty when it ended before. Interrupted, it takes the child along."""
    where = f"; its log is {log}" if log else ""
    screen = notices()
    waiting = screen.status(f"Starting{where}") if screen.is_terminal else nullcontext()
    try:
        with sigterm_interrupts(), os.fdopen(read_end) as pipe, waiting:
            return pipe.read()
    except BaseException:
        child.terminate()
        child.wait()
        raise


def _notify(pipe: int, state: StackState) -> None:
    """Tell who waits that all is ready. BrokenPipeError when nobody waits any more: a start that was given up ends here."""
    with os.fdopen(pipe, "w") as waiting:
        waiting.write(str(state.home))


def _reason(log: IO[bytes], begin: int, code: int) -> str:
    """Why the child ended: its last message, or how it ended and what it said."""
    log.seek(begin)
    said = log.read().decode(errors="replace").strip()
    _, found, message = said.rpartition("spanfold: ")
    return message if found else f"the stack exited with code {code} before it was ready:\n{said}"
