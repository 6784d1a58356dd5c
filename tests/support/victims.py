"""A Kafka (one node or three) and a Postgres whose processes can be killed, stopped and started again by a test."""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import pytest

from spanfold.embedded.jar_cache import fetch_jars, jar_cache
from spanfold.embedded.jars import locked_jars
from spanfold.embedded.java import find_java
from spanfold.embedded.kafka import Cluster, KafkaNode, kafka_program, new_cluster_id
from spanfold.embedded.ports import free_port
from spanfold.embedded.postgres import find_server, postgres_folder, postgres_program
from spanfold.embedded.programs import Guard, Program, spawn
from tests.support.processes import Program as Fork
from tests.support.waiting import until

THREE_NODES: Final = {
    "default.replication.factor": "3",
    "min.insync.replicas": "2",
    "offsets.topic.replication.factor": "3",
    "share.coordinator.state.topic.replication.factor": "3",
    "transaction.state.log.min.isr": "2",
    "transaction.state.log.replication.factor": "3",
}
"""Where a cluster of three differs from the node that is alone."""


class Process:
    """A program that is running, or not. `runs` counts its starts."""

    def __init__(self, program: Program, logs: Path, guard: Guard) -> None:
        self.program = program
        self.log = logs / f"{program.name}.log"
        self.runs = 0
        self._logs, self._guard = logs, guard
        self._process: subprocess.Popen[bytes] | Fork | None = None

    @property
    def pid(self) -> int:
        assert self._process
        return self._process.pid

    @property
    def code(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        assert self._process
        return self._process.poll()

    def start(self) -> Self:
        self.runs += 1
        self._process = self._spawn()
        return self

    def _spawn(self) -> subprocess.Popen[bytes] | Fork:
        return spawn(self.program, self._logs, self._guard)

    def await_ready(self) -> None:
        """A server that ends before it is ready (a port or a lock that is not free yet) is started again."""

        def ready() -> bool:
            if self.code is not None:
                self.start()
            return self.program.ready is None or self.program.ready()

        until(ready, f"{self.program.name} is ready", within_s=3 * self.program.ready_timeout_s)

    def send(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def end(self, number: signal.Signals, within_s: float = 30.0) -> int:
        """Send the signal and wait for the end; returns the exit code."""
        assert self._process
        self.send(number)
        return self._process.wait(within_s)


class Forked(Process):
    """One that the forkserver forks: a program in Python."""

    def _spawn(self) -> Fork:
        _, *argv = map(str, self.program.argv)
        with self.log.open("ab") as log:
            return Fork(argv, env={**os.environ, **self.program.env}, cwd=self.program.cwd, stdout=log, stderr=log)


class Servers:
    """Both servers, in a temporary folder that is gone afterwards, also when this process is killed."""

    def __init__(self, brokers: int = 1) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="spanfold-faults-"))
        self.logs = self.home / "logs"
        self.logs.mkdir()
        self.guard = Guard(self.logs / "guard.log", lambda: None, remove=[postgres_folder(self.home), self.home])
        taken: list[int] = []
        while len(taken) < 2 * brokers + 1:
            taken.append(free_port(taken))
        nodes = [
            KafkaNode(number, taken[2 * number - 1], taken[2 * number], self.home / f"kafka-{number}")
            for number in range(1, brokers + 1)
        ]
        self.bootstrap = ",".join(node.bootstrap for node in nodes)
        self.brokers = {node.node_id: self.process(program) for node, program in self._kafka(nodes)}
        server = find_server(self.home, taken[0])
        self.postgres_port = server.port
        self.postgres = self.process(postgres_program(server))

    def _kafka(self, nodes: Sequence[KafkaNode]) -> list[tuple[KafkaNode, Program]]:
        jars, java = locked_jars(), find_java()
        fetch_jars(jars, jar_cache())
        paths = [jar_cache() / jar.filename for jar in jars]
        cluster = Cluster(nodes, new_cluster_id(), THREE_NODES if len(nodes) > 1 else {})
        return [(node, kafka_program(node, java, paths, self.logs, cluster)) for node in nodes]

    def process(self, program: Program) -> Process:
        """A process that ends with this one, whatever ends this one."""
        return Process(program, self.logs, self.guard)

    def forked(self, program: Program) -> Process:
        """The same, of a program in Python, which need not import anything first."""
        return Forked(program, self.logs, self.guard)

    def start(self) -> Self:
        """Start all and return when they answer."""
        everything = [*self.brokers.values(), self.postgres]
        for each in everything:
            each.start()
        with ThreadPoolExecutor() as pool:
            list(pool.map(Process.await_ready, everything))
        return self

    def stop(self) -> None:
        self.guard.release()
        shutil.rmtree(self.home, ignore_errors=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def dsn(self, database: str, port: int | None = None) -> str:
        """A superuser's way to the database, directly or through the proxy on `port`."""
        return f"postgresql://spanfold@127.0.0.1:{port or self.postgres_port}/{database}"


@pytest.fixture(scope="session")
def victims() -> Iterator[Servers]:
    """One broker and Postgres, apart from everybody else's: they are killed by who takes them."""
    with Servers() as servers:
        yield servers
