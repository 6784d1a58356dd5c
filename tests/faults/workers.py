"""The workers of a schedule: processes of tests.faults.worker, and what their group says of them."""

import re
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from confluent_kafka import ConsumerGroupState, KafkaException
from confluent_kafka.admin import AdminClient

from spanfold.embedded.programs import Program
from spanfold.settings import Settings
from spanfold.topics import TRACES, installed_topics
from tests.faults.servers import Process, Servers
from tests.faults.waiting import DidNotBite, until

ROOT: Final = Path(__file__).parents[2]

Attempt = tuple[str, int, int, int, int]
"""A batch that a worker tried to commit: topic, partition, start, end, nanoseconds."""


@dataclass
class Worker:
    """One worker. `may_end` is set by the fault that ends it."""

    process: Process
    folder: Path
    may_end: bool = False

    @property
    def running(self) -> bool:
        return self.process.code is None

    def said(self) -> str:
        return self.process.log.read_text(errors="replace")

    def times(self, event: str) -> int:
        """How often it logged this event."""
        return len(re.findall(rf"\b{event}\b", re.sub(r"\x1b\[[0-9;]*m", "", self.said())))

    def arm(self, point: str, number: int, then: signal.Signals) -> None:
        """Have it send itself the signal when it reaches the point for the n-th time with records of traces."""
        self.disarm()
        (self.folder / "bit").unlink(missing_ok=True)
        (self.folder / "new").write_text(f"{point} {number} {then.name} {TRACES.name}")
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
    """Starts workers and keeps account of all that there were. `without`: see tests.faults.worker."""

    servers: Servers
    settings: Settings
    without: str = ""
    all: list[Worker] = field(default_factory=list)

    def start(self) -> Worker:
        name = f"{self.settings.group}-worker-{len(self.all)}"
        folder = self.servers.home / name
        folder.mkdir()
        named = {
            f"SPANFOLD_{key.upper()}": str(value)
            for key, value in self.settings.model_dump().items()
            if value is not None
        }
        program = Program(
            name=name,
            argv=[sys.executable, "-m", "tests.faults.worker"],
            env={
                **named, "FAULTS_FOLDER": str(folder), "FAULTS_WITHOUT": self.without,
                "PYTHONPATH": str(ROOT), "NO_COLOR": "1",
            },
            cwd=folder,
        )  # fmt: skip
        worker = Worker(self.servers.process(program).start(), folder)
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
        name = f"{self.settings.group}-projector"
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
            for topic in installed_topics()
            for partition in range(self.settings.partitions)
        }

        def done() -> bool:
            found = self.members()
            return found is not None and len(found) == members and set().union(*found) == wanted

        try:
            until(done, f"{members} members with all partitions", within_s)
        except DidNotBite as error:
            raise DidNotBite(f"{error}; the group is {self.members()}") from None

    def stop(self) -> None:
        """End all that still run, and say so to whoever waits for one of them."""
        for each in self.running:
            each.may_end = True
            each.process.end(signal.SIGKILL)
