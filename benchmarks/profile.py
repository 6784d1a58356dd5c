"""Where the projector's time goes: who holds Python's interpreter lock, and what Postgres' statements cost.

Python: py-spy samples the worker; each sample belongs to the innermost frame that lies in one of PARTS, and C code to the
Python that called it. Postgres: log_statement_stats writes each statement's CPU seconds to the server's log.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.table import Table

from benchmarks.runs import Runs

SAMPLES_A_SECOND: Final = 250
SAMPLED_S: Final = 4

PARTS: Final = {
    "aiokafka/": "fetch from Kafka (aiokafka)",
    "projections/commit/verdicts.py": "headers and verdicts",
    "schemas/codec.py": "Avro (fastavro)",
    "projections/commit/reading.py": "checks and jsonb",
    "projections/traces/fold.py": "fold",
    "projections/traces/dependencies.py": "calls between services",
    "projections/commit/journal.py": "journal's rows",
    "projections/traces/merge.py": "traces' and rollups' rows",
    "spanfold/postgres/copying.py": "COPY's format (psycopg)",
    "projections/": "the rest of projections",
    "stream_processors/": "the rest of the worker",
}
"""The first that a frame's path contains; what matches none of them is `everything else`."""

USAGE: Final = re.compile(r"([\d.]+) s user, ([\d.]+) s system, ([\d.]+) s elapsed")


@dataclass(frozen=True)
class Cost:
    """Of one statement, summed up: how often, and the seconds of CPU and of the clock, waiting for its client included."""

    count: int = 0
    cpu_s: float = 0.0
    elapsed_s: float = 0.0


def profile(runs: Runs, server_log: Path) -> tuple[Table, Table]:
    """One more run of the projector, measured: Python's table and Postgres'. SystemExit without py-spy, or without its
    samples.
    """
    program = py_spy()
    begin = server_log.stat().st_size
    with tempfile.NamedTemporaryFile("r") as samples, tempfile.TemporaryFile("w+") as said:
        sampler: list[subprocess.Popen[bytes]] = []

        def sample(worker: "subprocess.Popen[bytes]") -> None:
            every = ["--rate", str(SAMPLES_A_SECOND), "--duration", str(SAMPLED_S), "--gil", "--format", "raw"]
            command = [program, "record", "--pid", str(worker.pid), *every, "--output", samples.name]
            sampler.append(subprocess.Popen(command, stdout=said, stderr=said))

        rate = runs.projector(sample, {"log_statement_stats": "on"})
        code = sampler[0].wait(60)
        lines = samples.readlines()
        if code or not lines:
            said.seek(0)
            raise SystemExit(f"py-spy could not sample the worker (it may need root, or more events):\n{said.read()}")
    with server_log.open() as log:
        log.seek(begin)
        costs = statements(log)
    return _python_table(lines, rate), _postgres_table(costs, runs.events)


def py_spy() -> str:
    """The program. SystemExit when it is not installed."""
    found = shutil.which("py-spy", path=str(Path(sys.executable).parent)) or shutil.which("py-spy")
    if found is None:
        raise SystemExit("--profile needs py-spy: pip install py-spy")
    return found


def parts(lines: Iterable[str]) -> Counter[str]:
    """py-spy's raw lines, `frame;frame;… count`, as samples by part."""
    found: Counter[str] = Counter()
    for line in lines:
        stack, _, count = line.rpartition(" ")
        found[_part(stack.split(";"))] += int(count)
    return found


def _part(frames: list[str]) -> str:
    for frame in reversed(frames):
        for path, part in PARTS.items():
            if path in frame:
                return part
    return "everything else"


def statements(log: Iterable[str]) -> dict[str, Cost]:
    """What the statistics in a server's log add up to, by what each statement does."""
    costs: dict[str, Cost] = {}
    for user_s, system_s, elapsed_s, statement in _statistics(log):
        before = costs.get(statement, Cost())
        costs[statement] = Cost(before.count + 1, before.cpu_s + user_s + system_s, before.elapsed_s + elapsed_s)
    return costs


def _statistics(log: Iterable[str]) -> Iterator[tuple[float, float, float, str]]:
    """(user, system, elapsed, statement) of each entry; the statement's further lines begin with a tab."""
    usage: tuple[float, ...] = ()
    words: list[str] | None = None
    for line in log:
        if words is not None and line.startswith("\t"):
            words += line.split()
            continue
        if words is not None:
            yield usage[0], usage[1], usage[2], _short(words)
            words, usage = None, ()
        if found := USAGE.search(line):
            usage = tuple(map(float, found.groups()))
        elif usage and "STATEMENT:" in line:
            words = line.partition("STATEMENT:")[2].split()


def _short(words: list[str]) -> str:
    """What the statement does, to which table: generations and bench databases don't matter."""
    text = " ".join(words).replace('"', "")
    return re.split(r" \(| FROM STDIN| AS t| SET | VALUES|;", text)[0][:48]


def _python_table(lines: Iterable[str], rate: float) -> Table:
    total = SAMPLES_A_SECOND * SAMPLED_S
    table = Table("who holds the interpreter", "% of time", "µs an event", title=f"Python, at {rate:,.0f} events/s")
    for part, count in parts(lines).most_common():
        table.add_row(part, f"{100 * count / total:.1f}", f"{1e6 * count / total / rate:.2f}")
    held = sum(parts(lines).values())
    table.add_row("nobody", f"{100 * max(total - held, 0) / total:.1f}", "")
    return table


def _postgres_table(costs: dict[str, Cost], events: int) -> Table:
    table = Table("statement", "times", "CPU µs an event", "elapsed µs an event", title="Postgres")
    total = sum(cost.cpu_s for cost in costs.values())
    for statement, cost in sorted(costs.items(), key=lambda each: -each[1].cpu_s):
        if cost.cpu_s > total / 100 or cost.elapsed_s > total / 20:
            per_event = (f"{1e6 * seconds / events:.2f}" for seconds in (cost.cpu_s, cost.elapsed_s))
            table.add_row(statement, f"{cost.count:,}", *per_event)
    table.add_row("all", f"{sum(cost.count for cost in costs.values()):,}", f"{1e6 * total / events:.2f}", "")
    return table
