"""What the tests of the command line share: commands as processes of their own, and a stack that one of them started."""

import signal
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from tests.cli.shell import Shell, remove
from tests.support.processes import Forkserver


@pytest.fixture
def shell(forkserver: Forkserver, tmp_path: Path) -> Iterator[Shell]:
    """Commands about a home where nothing runs yet."""
    shell = Shell(tmp_path / "home")
    yield shell
    remove(shell)


@pytest.fixture(scope="session")
def shared(forkserver: Forkserver, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
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
def foreground() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a command and don't wait for it; what still runs at the end gets SIGTERM."""
    started: list[subprocess.Popen[str]] = []

    def start(shell: Shell, *words: str, **environment: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            shell.command(*words), env=shell.environment(**environment), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
