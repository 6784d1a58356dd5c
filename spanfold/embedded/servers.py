"""The two servers of a stack: fetched, prepared and started until they answer."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from spanfold.embedded.jar_cache import Advance, fetch_jars, jar_cache, missing_jars
from spanfold.embedded.jars import locked_jars
from spanfold.embedded.java import find_java
from spanfold.embedded.kafka import KafkaNode, kafka_program
from spanfold.embedded.ports import choose_ports
from spanfold.embedded.postgres import PostgresServer, find_server, postgres_program
from spanfold.embedded.programs import Program
from spanfold.language.progress import ProgressListener

PORTS_FILE: Final = "ports.json"

Start = Callable[[Program], None]


@dataclass(frozen=True, slots=True)
class Servers:
    """The servers that this stack starts itself; None for one that exists already."""

    kafka: KafkaNode | None
    postgres: PostgresServer | None

    @property
    def ports(self) -> dict[str, int]:
        """The ports that they listen on, by program."""
        ports: dict[str, int] = {}
        if self.kafka:
            ports |= {"kafka": self.kafka.broker_port, "kafka_controller": self.kafka.controller_port}
        if self.postgres:
            ports["postgres"] = self.postgres.port
        return ports


def plan_servers(home: Path, *, kafka: bool, postgres: bool, ports: Mapping[str, int] | None = None) -> Servers:
    """The servers of `home`, on the requested `ports`, else on those that they had before where those are free. Raises
    MissingPart, and Misconfigured for a requested port that is taken.
    """
    ports = choose_ports(("kafka", "kafka_controller", "postgres"), home / PORTS_FILE, ports)
    return Servers(
        KafkaNode(1, ports["kafka"], ports["kafka_controller"], home / "kafka") if kafka else None,
        find_server(home, ports["postgres"]) if postgres else None,
    )


def start_servers(servers: Servers, logs: Path, start: Start, progress: ProgressListener) -> None:
    """Start both at once with `start`, which returns when a program is ready; first fetch what they need.

    Raises MissingPart, JarMismatch, DownloadFailed or ChildFailed.
    """
    kafka, postgres = servers.kafka, servers.postgres
    java = find_java() if kafka else None
    jars = kafka_jars(progress) if kafka else []
    with ThreadPoolExecutor() as pool:
        starts = []
        if postgres:
            starts.append(pool.submit(_start_postgres, postgres, start, progress))
        if kafka and java:
            starts.append(pool.submit(_start_kafka, kafka, java, jars, logs, start, progress))
        for started in starts:
            started.result()


def _start_postgres(server: PostgresServer, start: Start, progress: ProgressListener) -> None:
    progress.step("starting PostgreSQL")
    start(postgres_program(server))


def _start_kafka(
    node: KafkaNode, java: Path, jars: list[Path], logs: Path, start: Start, progress: ProgressListener
) -> None:
    progress.step("starting Kafka")
    start(kafka_program(node, java, jars, logs))


def _counting(progress: ProgressListener, total: int) -> Advance:
    """What is called with how many bytes more have come."""
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        progress.advanced(done, total, "bytes")

    return advance


def kafka_jars(progress: ProgressListener) -> list[Path]:
    """Kafka's jars, in the cache. Raises JarMismatch or DownloadFailed."""
    jars, cache = locked_jars(), jar_cache()
    missing = missing_jars(jars, cache)
    if missing:
        progress.step("downloading Kafka's jars")
        fetch_jars(missing, cache, _counting(progress, sum(jar.size for jar in missing)))
    return [cache / jar.filename for jar in jars]
