"""`python -m tests.outages.soak`: an hour of a steady load on `spanfold up`, in which the events' day changes.

The clock of the events is shifted: half of them happened before the last midnight (UTC), half after it. In the end every
projection is verified against the log. The memory of each process must be flat, and the logs without an error. Exit code 1
otherwise.
"""

import random
import re
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final

import psycopg
import typer
from rich.console import Console
from rich.table import Table

from spanfold.kafka.log_ends import ends_of_log
from spanfold.language.events import DomainEvent
from spanfold.language.settings import Settings
from spanfold.operations.installation import Installation
from spanfold.producers.publisher import TelemetryPublisher
from tests.cli.shell import Shell, remove
from tests.support.load import events
from tests.support.waiting import until

console: Final = Console()

MINUTE_S: Final = 60
DAY_US: Final = 86_400_000_000
SAMPLE_S: Final = 15.0
GROWTH: Final = 1.15
"""A process may have so many times the memory in the last sixth that it had in the second one."""

TROUBLE: Final = re.compile(r"Traceback|CRITICAL|\[ERROR\]|\[error ")


def main(
    minutes: Annotated[int, typer.Option(min=6, help="how long")] = 60,
    per_second: Annotated[int, typer.Option(min=1, help="events")] = 500,
) -> None:
    """Run the soak."""
    shell = Shell(Path(tempfile.mkdtemp(prefix="spanfold-soak-")))
    try:
        shell_up(shell)
        settings = Installation.of(Settings(home=shell.home)).settings
        published, memory = _publish(shell, settings, minutes, per_second)
        _folded(settings)
        failures = [*_print_memory(memory), *_troubles(shell)]
        for name in ("traces", "metrics", "logs", "services"):
            done = shell("verify", name)
            console.print(f"verify {name}: exit code {done.returncode}")
            if done.returncode:
                failures.append(f"verify {name}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
        failures += shell.json("status")["problems"]
        console.print(f"{published:,} events in {minutes} minutes")
        for failure in failures:
            console.print(failure, style="red", markup=False)
    finally:
        remove(shell)
    raise typer.Exit(1 if failures else 0)


def shell_up(shell: Shell) -> None:
    done = shell("up", "--detach", "--otlp-port", "0", "--workers", "2")
    assert done.returncode == 0, done.stderr


def story(minutes: int, seed: int = 1) -> Iterator[Iterator[DomainEvent]]:
    """For each minute its events, by a clock that passes midnight in the middle."""
    midnight = time.time_ns() // 1000 // DAY_US * DAY_US
    for minute in range(minutes):
        now = midnight + (minute - minutes // 2) * MINUTE_S * 1_000_000
        yield events(random.Random(seed * 100_000 + minute), now)


def _publish(shell: Shell, settings: Settings, minutes: int, per_second: int) -> tuple[int, dict[str, list[float]]]:
    """Publish steadily. Returns how many events, and the resident memory of each process in MiB, sampled every SAMPLE_S."""
    published, memory, next_sample = 0, dict[str, list[float]](), 0.0
    began = time.monotonic()
    with TelemetryPublisher(settings, block_timeout_s=90) as publisher:
        for minute, source in enumerate(story(minutes)):
            for _ in range(MINUTE_S * per_second // 100):
                for event, _ in zip(source, range(100), strict=False):
                    publisher.publish(event)
                published += 100
                if (ahead := published / per_second - (time.monotonic() - began)) > 0:
                    time.sleep(ahead)
                if time.monotonic() - began >= next_sample:
                    next_sample += SAMPLE_S
                    for name, process in shell.family().items():
                        memory.setdefault(name, []).append(process.memory_info().rss / 2**20)
            console.print(f"minute {minute + 1}: {published:,} events", highlight=False)
        assert publisher.flush(90) == 0
    return published, memory


def _folded(settings: Settings) -> None:
    ends = set(ends_of_log(settings).items())
    query = "SELECT topic, partition, min(next_offset) FROM spanfold.checkpoints WHERE live GROUP BY 1, 2"

    def done() -> bool:
        with psycopg.connect(str(settings.postgres_dsn)) as ledger:
            return {((topic, partition), at) for topic, partition, at in ledger.execute(query)} == ends

    until(done, f"checkpoints at {ends}", within_s=300)


def _print_memory(memory: dict[str, list[float]]) -> list[str]:
    table, failures = Table("process", "MiB early", "MiB late", "most"), list[str]()
    for name, samples in memory.items():
        part = max(1, len(samples) // 6)
        if len(samples) < 4:
            continue
        early, late = statistics.median(samples[part : 2 * part]), statistics.median(samples[-part:])
        table.add_row(name, f"{early:.0f}", f"{late:.0f}", f"{max(samples):.0f}")
        if late > GROWTH * early + 16 and not name.startswith("pid "):
            failures.append(f"{name} grew from {early:.0f} to {late:.0f} MiB")
    console.print(table)
    return failures


def _troubles(shell: Shell) -> list[str]:
    lines: list[Any] = []
    for log in sorted((shell.home / "logs").glob("*.log")):
        text = re.sub(r"\x1b\[[0-9;]*m", "", log.read_text(errors="replace"))
        lines += [f"{log.name}: {line}" for line in text.splitlines() if TROUBLE.search(line)]
    return lines[:20]


if __name__ == "__main__":
    typer.run(main)
