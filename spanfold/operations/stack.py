"""The programs of a stack: its workers, and OTLP's front door; each with what makes it ready."""

import http.client
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import psutil
from confluent_kafka import ConsumerGroupState

from spanfold.application.aggregates import installed_aggregates
from spanfold.embedded.ports import choose_ports, is_free
from spanfold.embedded.programs import Program
from spanfold.embedded.servers import PORTS_FILE
from spanfold.embedded.stack_state import StackState
from spanfold.kafka.plaintext import NO_SECURITY
from spanfold.language.settings import Settings
from spanfold.language.topics import TopicOnBroker
from spanfold.operations.worker_group import PROJECTOR, SNAPSHOTS, WorkerGroup, owners

READY_TIMEOUT_S: Final = 90.0

OTLP: Final = "otlp"
OTLP_STOP_S: Final = 20.0
"""Longer than requests in flight may take."""


@dataclass(frozen=True, slots=True)
class Memory:
    """What the processes of a stack take together. `kind` is PSS, which counts shared pages once, or RSS where the system has no
    PSS: that counts them for each process.
    """

    bytes: int
    kind: Literal["PSS", "RSS"]


def memory_of(state: StackState) -> Memory:
    """The memory of the supervisor and all that it has started, now."""
    supervisor = state.supervisor.process()
    family = [supervisor, *supervisor.children(recursive=True)] if supervisor else []
    try:
        return Memory(sum(process.memory_full_info().pss for process in family), "PSS")
    except (psutil.Error, AttributeError):
        return Memory(sum(_rss(process) for process in family), "RSS")


def _rss(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


def settings_of(state: StackState, settings: Settings) -> Settings:
    """The settings by which a process of this stack works."""
    servers = {"home": state.home, "kafka_bootstrap": state.kafka_bootstrap, "postgres_dsn": state.postgres_dsn}
    return settings.model_copy(update={**servers, **(NO_SECURITY if state.has_own_kafka else {})})


def worker_programs(settings: Settings, projectors: int, topics: Sequence[TopicOnBroker]) -> list[Program]:
    """The programs of so many projectors and of the snapshot worker. Each counts as ready once it is in its group and the group
    owns every partition of these topics.
    """
    (settings.home / "workers").mkdir(exist_ok=True)
    folding = {aggregate.topic for aggregate in installed_aggregates().values()} if topics else set()
    return [
        *_workers(settings, PROJECTOR, [f"{PROJECTOR}-{number}" for number in range(1, projectors + 1)], topics, 0),
        *_workers(settings, SNAPSHOTS, [SNAPSHOTS], [topic for topic in topics if topic.topic in folding], projectors),
    ]


def _workers(
    settings: Settings, kind: str, names: Sequence[str], topics: Sequence[TopicOnBroker], others: int
) -> list[Program]:
    """Workers of one kind, when there are so many `others`: of a port that the settings name, each takes the next one."""
    port = settings.worker_port
    group = WorkerGroup(settings, kind)
    before = group.member_ids()
    return [
        Program(
            name,
            [sys.executable, "-m", "spanfold", "worker", kind],
            ready=_joined(group, before, number, topics),
            ready_timeout_s=READY_TIMEOUT_S,
            given_up=group.close,
            cwd=settings.home / "workers",  # where Faust keeps a data folder
            env={"SPANFOLD_WORKER_PORT": str(port and port + others + number - 1)},
        )
        for number, name in enumerate(names, start=1)
    ]


def _joined(
    group: WorkerGroup, before: set[str], newcomers: int, topics: Sequence[TopicOnBroker]
) -> Callable[[], bool]:
    """A generation that has the newcomers in it, and is settled, has no partition left with a member that is dead."""

    def joined() -> bool:
        described = group.describe()
        if described is None or described.state != ConsumerGroupState.STABLE:
            return False
        new = {member.member_id for member in described.members} - before
        owned = owners(described)
        expected = {(topic.name, partition) for topic in topics for partition in range(topic.partitions)}
        if len(new) < newcomers or not expected <= owned.keys():
            return False
        group.close()
        return True

    return joined


def otlp_program(settings: Settings) -> Program:
    """The front door on the port of the settings, or on another one where that is taken; ready once it is healthy."""
    port = settings.otlp_port
    if not port or not is_free(port):
        port = choose_ports((OTLP,), settings.home / PORTS_FILE)[OTLP]
    argv = [sys.executable, "-m", "spanfold", "otlp", "--host", settings.otlp_host, "--port", str(port)]
    return Program(OTLP, argv, ready=lambda: _is_healthy(settings.otlp_host, port), stop_timeout_s=OTLP_STOP_S)


def _is_healthy(host: str, port: int) -> bool:
    connection = http.client.HTTPConnection(host, port, timeout=3)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
