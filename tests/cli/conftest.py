"""What the tests of the command line share: commands as processes of their own, and a stack that one of them started."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
from typer.testing import CliRunner
from typer.testing import Result as Invoked

from spanfold.cli.app import app
from spanfold.embedded import StackState, read_state
from spanfold.language import settings as settings_module
from spanfold.language.settings import Settings

Result = subprocess.CompletedProcess[str]
Run = Callable[..., Invoked]


class Shell:
    """Runs `spanfold …` against one home, as a user would, with nothing of this process's settings."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def environment(self, **more: str) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("SPANFOLD_")}
        return {**kept, "SPANFOLD_HOME": str(self.home), "COLUMNS": "200", **more}

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "spanfold", *words]

    def __call__(self, *words: str, stdin: str = "", **environment: str) -> Result:
        return subprocess.run(
            self.command(*words),
            env=self.environment(**environment),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
        )

    def json(self, *words: str, **environment: str) -> Any:
        done = self(*words, "--json", **environment)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    @property
    def state(self) -> StackState | None:
        return read_state(self.home)

    @property
    def up_state(self) -> StackState:
        state = self.state
        assert state, f"nothing runs on {self.home}"
        return state

    def up(self) -> None:
        done = self("up", "--detach")
        assert done.returncode == 0, done.stderr

    def family(self) -> dict[str, psutil.Process]:
        """Every process of the stack, by name."""
        state = self.up_state
        named = {identity.pid: name for name, identity in state.processes.items()}
        supervisor = psutil.Process(state.supervisor.pid)
        children = supervisor.children(recursive=True)
        return {"supervisor": supervisor, **{named.get(each.pid, f"pid {each.pid}"): each for each in children}}


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """Commands about a home where nothing runs yet."""
    shell = Shell(tmp_path / "home")
    yield shell
    remove(shell)


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """Commands about a home that all tests share."""
    shell = Shell(tmp_path_factory.mktemp("cli") / "home")
    yield shell
    remove(shell)


@pytest.fixture
def running(shared: Shell) -> Shell:
    """Commands about a stack that `spanfold up --detach` has started, before this test or for it."""
    if shared.state is None:
        shared.up()
    return shared


@pytest.fixture
def own_servers(running: Shell) -> dict[str, str]:
    """The environment that names the running stack's servers, with an empty database and topics of its own."""
    state, name = running.up_state, f"t{uuid.uuid4().hex[:8]}"
    with psycopg.connect(state.postgres_dsn, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return {
        "SPANFOLD_KAFKA_BOOTSTRAP": state.kafka_bootstrap,
        "SPANFOLD_POSTGRES_DSN": state.postgres_dsn.rsplit("/", 1)[0] + f"/{name}",
        "SPANFOLD_TOPIC_PREFIX": f"{name}.",
        "SPANFOLD_GROUP": name,
    }


@pytest.fixture
def invoke(stack_settings: Settings) -> Iterator[Run]:
    """Run `spanfold …` in this process, about the test's own servers."""
    named = {
        f"SPANFOLD_{name.upper()}": str(value)
        for name, value in stack_settings.model_dump().items()
        if value is not None
    }

    def invoke(*words: str, stdin: str | None = None, **environment: str) -> Invoked:
        settings_module.settings.cache_clear()
        return CliRunner().invoke(app, words, input=stdin, env=named | environment)

    yield invoke
    settings_module.settings.cache_clear()


def told(run: Run, *words: str) -> Any:
    """What the command tells programs."""
    done = run(*words, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def remove(shell: Shell) -> None:
    """Stop what a test left running, and remove what it kept, also what root keeps elsewhere."""
    shell("down")
    for folder in (shell.home / "postgres", shell.home):
        shutil.rmtree(folder.resolve(), ignore_errors=True)


@pytest.fixture
def foreground() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a command and don't wait for it; what still runs at the end gets SIGTERM."""
    started: list[subprocess.Popen[str]] = []

    def start(shell: Shell, *words: str, **environment: str) -> subprocess.Popen[str]:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = subprocess.Popen(shell.command(*words), env=shell.environment(**environment), text=True, **pipes)
        started.append(process)
        return process

    yield start
    for process in started:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)


def end_order(processes: dict[str, psutil.Process], timeout_s: float = 60.0) -> list[str]:
    """The names of the processes in the order in which they end; fails when one outlives the time."""
    left, ended = dict(processes), []
    deadline = time.monotonic() + timeout_s
    while left:
        assert time.monotonic() < deadline, f"still alive: {left}"
        for name in [name for name, process in left.items() if not alive(process)]:
            ended.append(name)
            del left[name]
        time.sleep(0.01)
    return ended


def alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
