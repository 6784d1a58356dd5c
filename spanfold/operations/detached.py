"""A stack that runs beside the process that starts it: `spanfold up` in a session of its own, and how it is stopped."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from spanfold.embedded.errors import HomeInUse
from spanfold.embedded.servers import kafka_jars
from spanfold.embedded.stack_state import StackState, read_state, stop_running
from spanfold.language.errors import InvalidInput, SpanfoldError
from spanfold.language.progress import NO_PROGRESS, ProgressListener
from spanfold.language.settings import Settings
from spanfold.operations.installation import command_line

LAST_BREATH_S: Final = 10.0


class StartFailed(SpanfoldError):
    """The detached process ended before the stack was ready; `exit_code` is its own."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(frozen=True, slots=True)
class Started:
    """A stack that was started. `problems`: a sentence about each program that is not ready; it is started again all the same."""

    state: StackState
    problems: Sequence[str] = ()


def refuse_a_second(home: Path) -> None:
    """HomeInUse when a stack runs on this home already."""
    if state := read_state(home):
        raise HomeInUse(
            f"a stack is already running in {home} (pid {state.supervisor.pid}), with Kafka at {state.kafka_bootstrap} and"
            f" Postgres at {state.postgres_dsn}. Show it with `{command_line(home, 'status')}`, stop it with"
            f" `{command_line(home, 'down')}`, or choose another --home."
        )


def start_detached(
    settings: Settings,
    *,
    workers: int = 1,
    ephemeral: bool = False,
    ports: Mapping[str, int] | None = None,
    progress: ProgressListener = NO_PROGRESS,
) -> Started:
    """Start a stack that goes on when this process ends; returns once it is ready, or has programs that don't get ready.
    StartFailed when it ended before; what kafka_jars raises.
    """
    if not settings.kafka_bootstrap:
        kafka_jars(progress)  # here, where somebody sees it
    with tempfile.TemporaryFile() if ephemeral else _open_log(settings.home) as log:
        begin = log.seek(0, os.SEEK_END)
        read_end, write_end = os.pipe()
        child = subprocess.Popen(
            [sys.executable, "-m", "spanfold", "up", *_arguments(settings, workers, ephemeral, write_end, ports or {})],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, **_environment(settings)},  # not arguments, which other users can read
            pass_fds=[write_end],
            start_new_session=True,
        )
        os.close(write_end)
        progress.step("starting the stack" + ("" if ephemeral else f"; its log is {log.name}"))
        report = _await_ready(child, read_end)
        home, problems = json.loads(report) if report else (None, [])
        state = read_state(Path(home)) if home else None
        if state is None:
            code = child.wait()
            raise StartFailed(_reason(log, begin, code), code if code > 0 else 1)
        return Started(state, problems)


def report_ready(pipe: int, started: Started) -> None:
    """Tell the process that waits in start_detached. BrokenPipeError when it waits no more: a start that was given up ends."""
    with os.fdopen(pipe, "w") as waiting:
        json.dump([str(started.state.home), list(started.problems)], waiting)


def stop_detached(home: Path) -> bool:
    """Stop the stack that runs on the home, in order; returns False when there is none. The data is kept."""
    state = read_state(home)
    supervisor = state.supervisor.process() if state else None
    stopped = stop_running(home)
    if supervisor:
        supervisor.wait(LAST_BREATH_S)  # it lets go of the home a moment before it ends
    return stopped


def _open_log(home: Path) -> IO[bytes]:
    logs = home / "logs"
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        logs.mkdir(exist_ok=True)
        return (logs / "up.log").open("a+b")
    except OSError as error:
        raise InvalidInput(f"{home} can't be used as the home: {error.strerror} ({error.filename})") from error


def _arguments(
    settings: Settings, workers: int, ephemeral: bool, notify: int, ports: Mapping[str, int]
) -> Iterator[str]:
    yield from ("--workers", str(workers), "--notify", str(notify))
    yield from ["--ephemeral"] if ephemeral else ["--home", str(settings.home)]
    for name, port in ports.items():
        yield from (f"--{name}-port", str(port))


def _environment(settings: Settings) -> dict[str, str]:
    """The servers that are named, and the ports."""
    named = {
        "SPANFOLD_KAFKA_BOOTSTRAP": settings.kafka_bootstrap,
        "SPANFOLD_POSTGRES_DSN": settings.postgres_dsn,
        "SPANFOLD_OTLP_PORT": str(settings.otlp_port),
        "SPANFOLD_WORKER_PORT": str(settings.worker_port),
    }
    return {name: value for name, value in named.items() if value}


def _await_ready(child: "subprocess.Popen[bytes]", read_end: int) -> str:
    """What the child reports when it is ready; empty when it ended before. Interrupted, it takes the child along."""
    try:
        with os.fdopen(read_end) as pipe:
            return pipe.read()
    except BaseException:
        child.terminate()
        child.wait()
        raise


def _reason(log: IO[bytes], begin: int, code: int) -> str:
    """Why the child ended: its last message, or how it ended and what it wrote."""
    log.seek(begin)
    output = log.read().decode(errors="replace").strip()
    _, marker, message = output.rpartition("spanfold: ")
    return message if marker else f"the stack exited with code {code} before it was ready:\n{output}"
