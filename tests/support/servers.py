"""Kafka and Postgres, for real: from SPANFOLD_TEST_KAFKA and SPANFOLD_TEST_POSTGRES, else testcontainers where a Docker
engine answers, else the embedded ones.

They are booted once for a whole run, by a process of their own (`python -m tests.support.servers FOLDER`), so that all of
pytest-xdist's workers share them. Whichever worker first collects a test that needs servers starts that process; tests wait
for it when they come to the `servers` fixture. It ends with the run, and also when the run is killed.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import psutil
import psycopg
import pytest

from tests.support.jvm import ensure_archive
from tests.support.waiting import until

KAFKA: Final = "SPANFOLD_TEST_KAFKA"
POSTGRES: Final = "SPANFOLD_TEST_POSTGRES"

FOLDER: Final = "SPANFOLD_TEST_SERVERS"
"""Names the folder in which the processes of a run leave word about the servers."""

ROOT: Final = Path(__file__).parents[2]

BOOT_S: Final = 240.0
"""A first run downloads Kafka."""


@dataclass(frozen=True)
class Servers:
    kafka_bootstrap: str
    postgres_dsn: str
    kind: str

    def dsn_of(self, database: str) -> str:
        """Another database of the same server."""
        return self.postgres_dsn.rsplit("/", 1)[0] + f"/{database}"


@pytest.fixture(scope="session")
def servers() -> Servers:
    """The servers of this run."""
    return _named_by_environment() or _Boot.of_this_run().wait()


@pytest.fixture(scope="session")
def kafka_bootstrap(servers: Servers) -> str:
    """Whoever takes this, itself or through another fixture, uses Kafka."""
    return servers.kafka_bootstrap


def pytest_configure(config: pytest.Config) -> None:
    """Name the folder; pytest-xdist's workers inherit it."""
    if not _is_xdist_worker(config):
        folder = Path(tempfile.mkdtemp(prefix="spanfold-test-servers-"))
        (folder / "owner").write_text(str(os.getpid()))
        os.environ[FOLDER] = str(folder)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Boot while the tests that need no server run."""
    needed = any("servers" in getattr(item, "fixturenames", ()) for item in session.items)
    if needed and not session.config.option.collectonly and not _named_by_environment():
        _Boot.of_this_run().begin()


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop what was booted."""
    if not _is_xdist_worker(config):
        _Boot.of_this_run().end()


def _is_xdist_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")


def _named_by_environment() -> Servers | None:
    kafka, postgres = os.environ.get(KAFKA), os.environ.get(POSTGRES)
    return Servers(kafka, postgres, "environment") if kafka and postgres else None


@dataclass(frozen=True)
class _Boot:
    """The boot of a run's servers, as the processes of that run see it: files in a folder."""

    folder: Path

    @classmethod
    def of_this_run(cls) -> "_Boot":
        return cls(Path(os.environ[FOLDER]))

    @property
    def _process(self) -> Path:
        return self.folder / "process"

    @property
    def _ready(self) -> Path:
        return self.folder / "servers.json"

    @property
    def _log(self) -> Path:
        return self.folder / "log"

    def begin(self) -> None:
        """Start the process that boots, unless another process of the run has."""
        with suppress(FileExistsError), (self.folder / "begun").open("x"), self._log.open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.servers", self.folder],
                cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
            _write_whole(self._process, str(process.pid))

    def wait(self) -> Servers:
        """The servers, once they answer."""
        self.begin()
        until(self._process.exists, "a process that boots the servers")
        pid = int(self._process.read_text())

        def ready() -> bool:
            assert _runs(pid) or self._ready.exists(), f"the servers did not start:\n{self._log.read_text()}"
            return self._ready.exists()

        until(ready, "servers for the tests", self._log.read_text, within_s=BOOT_S)
        return Servers(**json.loads(self._ready.read_text()))

    def serve(self, servers: Servers) -> None:
        """Say where the servers are, until the run is over: the folder, or the process that made it, is gone."""
        owner = int((self.folder / "owner").read_text())
        _write_whole(self._ready, json.dumps(asdict(servers)))
        if servers.kind == "embedded":
            ensure_archive()
        while self._ready.exists() and _runs(owner):
            time.sleep(0.1)

    def end(self) -> None:
        """Remove the folder, and wait until the servers have ended."""
        pid = int(self._process.read_text()) if self._process.exists() else None
        shutil.rmtree(self.folder)
        if pid:
            until(lambda: not _runs(pid), "the end of the servers")


def _write_whole(path: Path, text: str) -> None:
    """Write a file that others see whole or not at all."""
    path.with_suffix(".new").write_text(text)
    path.with_suffix(".new").rename(path)


def _runs(pid: int) -> bool:
    with suppress(psutil.NoSuchProcess):
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    return False


@contextmanager
def _embedded() -> Iterator[Servers]:
    from spanfold.embedded.stack import EmbeddedStack

    with EmbeddedStack(ephemeral=True) as stack:
        yield Servers(stack.state.kafka_bootstrap, stack.state.postgres_dsn, "embedded")


@contextmanager
def _containers() -> Iterator[Servers]:
    from testcontainers.community.kafka import KafkaContainer
    from testcontainers.community.postgres import PostgresContainer

    with (
        KafkaContainer("confluentinc/cp-kafka:8.0.0") as kafka,
        PostgresContainer("postgres:18", driver=None) as postgres,
    ):
        yield Servers(kafka.get_bootstrap_server(), postgres.get_connection_url(), "testcontainers")


def _docker_answers() -> bool:
    import docker

    try:
        docker.from_env().ping()
    except docker.errors.DockerException:
        return False
    return True


def _do_not_sync(servers: Servers) -> None:
    """Let Postgres leave it to the operating system when bytes reach the disk. Only a crash of the machine could lose them,
    never the end of a process, and nothing here outlives the run anyway.
    """
    with psycopg.connect(servers.postgres_dsn, autocommit=True) as connection:
        for name in ("fsync", "full_page_writes"):
            connection.execute(f"ALTER SYSTEM SET {name} = off".encode())
        connection.execute("SELECT pg_reload_conf()")


def main(folder: str) -> None:
    """Boot the servers and keep them until the run is over."""
    with _containers() if _docker_answers() else _embedded() as servers:
        _do_not_sync(servers)
        _Boot(Path(folder)).serve(servers)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1])
