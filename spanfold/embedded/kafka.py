"""Apache Kafka in KRaft mode as child programs: one node that is broker and controller."""

import base64
import json
import os
import signal
import socket
import subprocess
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from spanfold.embedded.errors import ChildFailed
from spanfold.embedded.ports import HOST
from spanfold.embedded.programs import RECOVERY_S, Program

HEAP: Final = ("-Xms256m", "-Xmx512m")
ENVIRONMENT: Final = {"LC_ALL": "C.UTF-8"}
"""In the C locale Java can't open a path with letters other than ASCII."""

BROKER_SETTINGS: Final[Mapping[str, str]] = {
    # Topics are created by spanfold, with their partition count for life.
    "auto.create.topics.enable": "false",
    # A killed broker can register again only when its session has ended.
    "broker.heartbeat.interval.ms": "1000",
    "broker.session.timeout.ms": "4000",
    "group.initial.rebalance.delay.ms": "0",
    "log.cleaner.dedupe.buffer.size": "33554432",
    # Room on the disk comes back by whole segments; the largest batch of the topic of snapshots must fit into one.
    "log.segment.bytes": "134217728",
    "offsets.topic.num.partitions": "4",
    "offsets.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "4",
    "transaction.state.log.replication.factor": "1",
}
"""Where the broker differs from Kafka's defaults, wherever it runs; docker-compose.yml has the same settings."""


@dataclass(frozen=True, slots=True)
class KafkaNode:
    """One node's place: its id, its ports on 127.0.0.1 and the folder of its data and configuration."""

    node_id: int
    broker_port: int
    controller_port: int
    home: Path

    @property
    def bootstrap(self) -> str:
        """host:port for clients."""
        return f"{HOST}:{self.broker_port}"

    @property
    def voter(self) -> str:
        """How controller.quorum.voters names it."""
        return f"{self.node_id}@{HOST}:{self.controller_port}"


def broker_config(node: KafkaNode, quorum: Sequence[KafkaNode]) -> dict[str, str]:
    """The server.properties of `node`; `quorum` are all nodes of its cluster, itself included."""
    return {
        **BROKER_SETTINGS,
        "process.roles": "broker,controller",
        "node.id": str(node.node_id),
        "controller.quorum.voters": ",".join(member.voter for member in quorum),
        "listeners": f"PLAINTEXT://{node.bootstrap},CONTROLLER://{HOST}:{node.controller_port}",
        "advertised.listeners": f"PLAINTEXT://{node.bootstrap}",
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "PLAINTEXT",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": str(node.home / "data"),
    }


@dataclass(frozen=True, slots=True)
class Cluster:
    """What the nodes of a cluster share: its nodes, its id, and settings that differ from BROKER_SETTINGS."""

    nodes: Sequence[KafkaNode]
    cluster_id: str
    settings: Mapping[str, str]


def new_cluster_id() -> str:
    """A UUID as Kafka writes it: 22 characters of base64."""
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")


def kafka_program(
    node: KafkaNode, java: Path, jars: Sequence[Path], logs: Path, cluster: Cluster | None = None
) -> Program:
    """The program that serves `node`, alone or in its cluster; its storage is formatted first if it never was. Raises
    ChildFailed.
    """
    alone = cluster is None
    cluster = cluster or Cluster([node], new_cluster_id(), {})
    (node.home / "tmp").mkdir(parents=True, exist_ok=True)
    config = node.home / "server.properties"
    config.write_text(properties({**broker_config(node, cluster.nodes), **cluster.settings}))
    command: list[str | Path] = [java, *_jvm_options(node), "-cp", os.pathsep.join(map(str, jars))]
    if not (node.home / "data" / "meta.properties").exists():
        _format_storage(command, cluster.cluster_id, config, logs / "kafka.log")
    return Program(
        name="kafka" if alone else f"kafka-{node.node_id}",
        argv=[*command, "kafka.Kafka", config],
        env=ENVIRONMENT,
        ready=lambda: answers(node.bootstrap),
        ready_timeout_s=RECOVERY_S,
        stop_signal=signal.SIGTERM,
        stop_timeout_s=20.0,
        cwd=node.home,
    )


def properties(settings: Mapping[str, str]) -> str:
    """A Java properties file; it is read as Latin-1, so other letters of a path are written as JSON would."""
    return "".join(f"{key}={json.dumps(value)[1:-1]}\n" for key, value in settings.items())


def answers(bootstrap: str) -> bool:
    """Whether an admin client gets brokers and topics within a second."""
    host, _, port = bootstrap.rpartition(":")
    try:
        # librdkafka backs off after a refused connection; a plain one doesn't.
        socket.create_connection((host, int(port)), timeout=1).close()
        metadata = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0}).list_topics(timeout=1)
    except (OSError, KafkaException):
        return False
    return bool(metadata.brokers)


def _jvm_options(node: KafkaNode) -> list[str]:
    return [
        *HEAP,
        "-server",
        "-XX:+UseG1GC",
        "-XX:+ExitOnOutOfMemoryError",
        "-XX:-UsePerfData",
        f"-Djava.io.tmpdir={node.home / 'tmp'}",
        f"-Dlog4j2.configurationFile={Path(__file__).with_name('log4j2.properties').as_uri()}",
    ]


def _format_storage(command: Sequence[str | Path], cluster_id: str, config: Path, log: Path) -> None:
    # Given with "=": one id in 64 begins with a dash.
    done = subprocess.run(
        [*command, "kafka.tools.StorageTool", "format", f"--cluster-id={cluster_id}", "--config", config],
        capture_output=True,
        text=True,
        env={**os.environ, **ENVIRONMENT},
    )
    if done.returncode:
        log.write_text(done.stdout + done.stderr)
        raise ChildFailed(f"Kafka's storage could not be formatted; see {log}:\n{done.stdout}{done.stderr}")
