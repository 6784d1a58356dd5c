"""Workers as processes, and waiting until their checkpoints reach the log's end."""

import json
import re
import subprocess
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
from prometheus_client.parser import text_string_to_metric_families

from spanfold.kafka.log_ends import ends_of_log
from spanfold.language.settings import Settings
from spanfold.language.topics import Partition
from tests.support.commands import environment
from tests.support.databases import Ledger
from tests.support.processes import SPANFOLD, Forkserver, Program
from tests.support.topics import log_ends
from tests.support.waiting import until

PROJECTOR: Final = (*SPANFOLD, "worker", "projector")
SNAPSHOTS: Final = (*SPANFOLD, "worker", "snapshots")


@dataclass
class Worker:
    """A process that goes on until it is stopped, with what it wrote. `program` is what Python runs."""

    settings: Settings
    folder: Path
    program: tuple[str, ...] = PROJECTOR
    process: Program = field(init=False)

    def __post_init__(self) -> None:
        with self.log.open("wb") as log:
            self.process = Program(
                self.program, env=environment(self.settings), cwd=self.folder, stdout=log, stderr=log
            )

    @property
    def log(self) -> Path:
        return self.folder / "log"

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def check(self) -> None:
        """Fail if it has ended."""
        assert self.process.poll() is None, f"the worker ended:\n{self.output()}"

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self.process.wait()

    def stop(self, within_s: float = 60) -> int:
        """SIGTERM; returns the exit code."""
        self.process.terminate()
        try:
            return self.process.wait(within_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"SIGTERM did not end the worker within {within_s} s:\n{self.output()}") from None


Start = Callable[..., Worker]


@pytest.fixture
def start(forkserver: Forkserver, kafka_bootstrap: str, stack_settings: Settings, tmp_path: Path) -> Iterator[Start]:
    """Start a worker; `start(batch_records=100)` changes settings, `program` what Python runs. What still runs at the end
    is killed.
    """
    workers: list[Worker] = []

    def start(settings: Settings = stack_settings, *, program: tuple[str, ...] = PROJECTOR, **changes: Any) -> Worker:
        folder = tmp_path / f"worker {len(workers)}"
        folder.mkdir()
        worker = Worker(settings.model_copy(update={"session_timeout_s": 6.0, **changes}), folder, program)
        workers.append(worker)
        return worker

    yield start
    for worker in workers:
        worker.kill()


def positions(ledger: Ledger, projection: str = "traces") -> dict[int, int]:
    """Where the projection stands in each partition of the trace topic."""
    query = """
        SELECT partition, next_offset FROM spanfold.checkpoints WHERE topic = 'spanfold.traces' AND projection = %s
    """
    return dict(ledger.execute(query, [projection]).fetchall())


def folded_to_the_end(ledger: Ledger, worker: Worker, *others: Worker) -> None:
    """Wait until all that the trace topic has is judged and folded; fails at once if a worker has ended."""
    ends, running = log_ends(worker.settings), (worker, *others)

    def is_folded() -> bool:
        for one in running:
            one.check()
        return positions(ledger) == ends == positions(ledger, "journal")

    until(is_folded, f"checkpoints at {ends}", lambda: f"{positions(ledger)}\n{worker.output()}")


def folded(ledger: Ledger, settings: Settings, *workers: Worker) -> None:
    """Wait until the live generations have folded all that the topics have; fails at once if a worker has ended."""
    ends = ends_of_log(settings)

    def is_folded() -> bool:
        for worker in workers:
            worker.check()
        return live_positions(ledger).items() >= ends.items()

    until(is_folded, f"checkpoints at {ends}", lambda: live_positions(ledger))


def live_positions(ledger: Ledger) -> Mapping[Partition, int]:
    """Up to where every live generation has folded each partition."""
    rows = ledger.execute(
        "SELECT topic, partition, min(next_offset) FROM spanfold.checkpoints WHERE live GROUP BY 1, 2"
    )
    return {(topic, partition): offset for topic, partition, offset in rows}


def health_of(worker: Worker) -> tuple[int, list[str]]:
    status, body = page(worker, "/healthz")
    said = json.loads(body)
    assert said["pid"] == worker.process.pid
    assert said["healthy"] == (status == 200)
    return status, said["problems"]


def metrics_of(worker: Worker) -> dict[tuple[str, ...], float]:
    """Every sample by its name and the values of its labels, in the order of the labels' names."""
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(page(worker, "/metrics")[1])
        for sample in family.samples
    }


def url_of(worker: Worker) -> str:
    """Where it serves its metrics and its health, as soon as it says so."""

    def url() -> str:
        worker.check()
        return next(iter(re.findall(r"http://127\.0\.0\.1:\d+", worker.output())), "")

    return until(url, "the worker's URL", worker.output)


def page(worker: Worker, page: str) -> tuple[int, str]:
    """Status and body of a page of the worker's."""
    url = url_of(worker)
    try:
        with urllib.request.urlopen(f"{url}{page}", timeout=10) as response:  # noqa: S310  # the worker's own
            return response.status, response.read().decode()
    except urllib.error.HTTPError as refusal:
        return refusal.code, refusal.read().decode()
