"""The workers of a schedule: processes of tests.faults.worker or snapshot_worker, and what their group says of them."""

import re
import signal
import sys
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from confluent_kafka import ConsumerGroupState, KafkaException
from confluent_kafka.admin import AdminClient

from spanfold.application.aggregates import installed_aggregates
from spanfold.embedded.programs import Program
from spanfold.language.settings import Settings
from spanfold.language.topics import TRACES, Topic, installed_topics
from tests.support.victims import Process, Servers
from tests.support.waiting import until

Attempt = tuple[str, int, int, int, int]
"""A batch that a worker tried to commit: topic, partition, start, end, nanoseconds."""


@dataclass(frozen=True)
class Role:
    """What the workers are: the Python module that runs one, the name of their group behind the installation's, and the topics
    that they read.
    """

    name: str
    module: str
    topics: Callable[[], Collection[Topic]]


PROJECTOR: Final = Role("projector", "tests.faults.worker", installed_topics)
SNAPSHOTS: Final = Role(
    "snapshots", "tests.faults.snapshot_worker", lambda: [each.topic for each in installed_aggregates().values()]
)


@dataclass
class Worker:
    """One worker. `may_end` is set by the fault that ends it."""

    process: Process
    folder: Path
    may_end: bool = False

    @property
    def running(self) -> bool:
        return self.process.code is None

    def output(self) -> str:
        return self.process.log.read_text(errors="replace")

    def times(self, event: str) -> int:
        """How often it logged this event; what a line says of another event does not count."""
        said = re.sub(r"\x1b\[[0-9;]*m", "", self.output())
        return len(re.findall(rf"^[^=\n]*\b{event}\b", said, re.MULTILINE))

    def arm(self, point: str, number: int, then: signal.Signals, topic: Topic = TRACES) -> None:
        """Have it send itself the signal when it reaches the point for the n-th time with records of the topic."""
        self.disarm()
        (self.folder / "bit").unlink(missing_ok=True)
        (self.folder / "new").write_text(f"{point} {number} {then.name} {topic.name}")
        (self.folder / "new").rename(self.folder / "arm")

    def disarm(self) -> None:
        (self.folder / "arm").unlink(missing_ok=True)

    @property
    def bit(self) -> bool:
        return (self.folder / "bit").exists()

    def attempts(self) -> Iterator[Attempt]:
        path = self.folder / "attempts"
        for line in path.read_text().splitlines() if path.exists() else ():
            topic, *numbers = line.split()
            if len(numbers) == 4:  # else it was killed while it wrote
                partition, start, end, at = map(int, numbers)
                yield topic, partition, start, end, at


@dataclass
class Workers:
    """Starts workers and keeps account of all that there were. `without`: see the role's module. `fickle`: they fold the
    projection of fickle.py too.
    """

    servers: Servers
    settings: Settings
    without: str = ""
    role: Role = PROJECTOR
    all: list[Worker] = field(default_factory=list)
    fickle: bool = False

    def start(self) -> Worker:
        name = f"{self.settings.group}-{self.role.name}-{len(self.all)}"
        folder = self.servers.home / name
        folder.mkdir()
        named = {
            f"SPANFOLD_{key.upper()}": str(value)
            for key, value in self.settings.model_dump().items()
            if value is not None
        }
        program = Program(
            name=name,
            argv=[sys.executable, "-m", self.role.module],
            env={
                **named, "FAULTS_FOLDER": str(folder), "FAULTS_WITHOUT": self.without,
                "FAULTS_FICKLE": "1" * self.fickle,
                "NO_COLOR": "1",
            },
            cwd=folder,
        )  # fmt: skip
        worker = Worker(self.servers.forked(program).start(), folder)
        self.all.append(worker)
        return worker

    @property
    def running(self) -> list[Worker]:
        return [each for each in self.all if each.running]

    def replace_the_dead(self) -> int:
        """Start one worker for each that ended without having been told to; returns how many those were."""
        dead = [each for each in self.all if not each.running and not each.may_end]
        for each in dead:
            each.may_end = True
            self.start()
        return len(dead)

    def members(self) -> list[set[tuple[str, int]]] | None:
        """Of each member of the group the partitions that it has; None unless the group is settled."""
        admin = AdminClient({"bootstrap.servers": self.settings.kafka_bootstrap or "", "log_level": 0})
        name = f"{self.settings.group}-{self.role.name}"
        try:
            group = admin.describe_consumer_groups([name], request_timeout=5)[name].result()
        except KafkaException:
            return None
        if group.state != ConsumerGroupState.STABLE:
            return None
        return [{(tp.topic, tp.partition) for tp in each.assignment.topic_partitions} for each in group.members]

    def settled(self, members: int, within_s: float = 45.0) -> None:
        """Wait until just so many members have all partitions among them."""
        wanted = {
            (topic.on_broker(self.settings.topic_prefix), partition)
            for topic in self.role.topics()
            for partition in range(self.settings.partitions)
        }

        def done() -> bool:
            found = self.members()
            return found is not None and len(found) == members and set().union(*found) == wanted

        until(done, f"{members} members with all partitions", self.members, within_s=within_s)

    def stop(self) -> None:
        """End all that still run, and say so to whoever waits for one of them."""
        for each in self.running:
            each.may_end = True
            each.process.end(signal.SIGKILL)
