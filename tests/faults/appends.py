"""Processes that append to few aggregates while things break, and what must be true of all that they were told."""

import json
import random
import signal
import sys
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psycopg

from spanfold.embedded.programs import Program
from tests.faults import reference
from tests.faults.injuries import Scene
from tests.faults.schedule import Plan, folded_to_the_end, inflict, stage
from tests.support.victims import Process, Servers
from tests.support.waiting import until

Line = dict[str, Any]

PATIENCE_S: Final = 240.0
WORK_S: Final = 1200.0
"""Longer than all appends take on a busy machine."""


@dataclass(frozen=True)
class Schedule:
    """So many appender processes with so many tasks each, which append at least `least` times together; `faults` are names of
    injuries, or kill_appender.
    """

    seed: int
    processes: int
    least: int
    faults: Sequence[str]
    tasks: int = 4
    aggregates: int = 4
    timeout_s: float = 3.0
    naive: bool = False


@dataclass
class Appender:
    """One process. `may_end` is set by the fault that ends it."""

    process: Process
    folder: Path
    may_end: bool = False

    def diary(self) -> list[Line]:
        path = self.folder / "diary"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def unanswered(self) -> set[str]:
        lines = self.diary()
        return {line["try"] for line in lines if "try" in line} - {line["told"] for line in lines if "told" in line}


@dataclass
class Verdicts:
    """What the tables say in the end: by event id the verdict, version, partition and offset; the accepted event ids by version;
    the heads.
    """

    decided: dict[str, tuple[str, int | None, int, int]]
    accepted: dict[str, list[tuple[int, str]]]
    heads: dict[str, int]


@dataclass
class Result:
    """`told` is what each process was told, line by line; `lies` is empty, or says what was not true."""

    told: list[list[Line]] = field(default_factory=list)
    verdicts: Verdicts = field(default_factory=lambda: Verdicts({}, {}, {}))
    killed: int = 0
    unanswered: int = 0
    lies: list[str] = field(default_factory=list)

    def count(self, verdict: str) -> int:
        return sum(line.get("verdict") == verdict for lines in self.told for line in lines)

    @property
    def appends(self) -> int:
        return sum("try" in line for lines in self.told for line in lines)

    @property
    def believed_twice(self) -> int:
        """How many versions more than one event's appender believes that it wrote."""
        winners = defaultdict[tuple[str, int], set[str]](set)
        for lines in self.told:
            aggregates = {line["try"]: line["aggregate"] for line in lines if "try" in line}
            for line in lines:
                if line.get("verdict") == "accepted":
                    winners[aggregates[line["told"]], line["version"]].add(line["told"])
        return sum(len(events) > 1 for events in winners.values())

    def __str__(self) -> str:
        counts = {verdict: self.count(verdict) for verdict in ("accepted", "conflict", "unknown", "none")}
        return (
            f"{self.appends} appends of {len(self.told)} processes, {self.killed} of them killed with {self.unanswered} appends "
            f"unanswered; told: {counts}; versions written twice: {self.believed_twice}; lies: {len(self.lies)}"
        )


def run(servers: Servers, schedule: Schedule) -> Result:
    """The whole schedule; the tables are compared with the log and with what everybody was told."""
    result = Result()
    with stage(servers, Plan(schedule.seed, workers=2, batch_records=200)) as (scene, _, report):
        scene.workers.settled(2)
        with appenders(scene, schedule) as running:
            for name in schedule.faults:
                _work_goes_on(running)
                if name == "kill_appender":
                    _kill_one(scene, schedule, running)
                else:
                    inflict(scene, report, name)
            _work_goes_on(running)
            (_home(scene) / "stop").touch()
            until(lambda: all(each.process.code is not None for each in running), "the appenders' end", within_s=WORK_S)
        folded_to_the_end(scene, report)
        print(f"{schedule.faults}: {report.faults}")
        result.told = [each.diary() for each in running]
        result.killed = sum(each.may_end for each in running)
        result.unanswered = sum(len(each.unanswered()) for each in running)
        ended = [each.process.code for each in running if not each.may_end]
        assert set(ended) == {0}, [each.process.log.read_text()[-3000:] for each in running if each.process.code]
        result.verdicts = _verdicts(scene)
        result.lies = [*_differences(scene, result.verdicts), *_lies(running, result.verdicts, schedule)]
    return result


@contextmanager
def appenders(scene: Scene, schedule: Schedule) -> Iterator[list[Appender]]:
    """At work; what still runs at the end is killed."""
    running: list[Appender] = []
    try:
        for _ in range(schedule.processes):
            _start(scene, schedule, running)
        yield running
    finally:
        for each in running:
            if each.process.code is None:
                each.process.end(signal.SIGKILL)


def _home(scene: Scene) -> Path:
    return scene.servers.home / f"{scene.workers.settings.group}-appenders"


def _start(scene: Scene, schedule: Schedule, running: list[Appender]) -> None:
    settings, number = scene.workers.settings, len(running)
    folder = _home(scene) / str(number)
    folder.mkdir(parents=True)
    plan = {
        "aggregates": [f"instance-{each}" for each in range(schedule.aggregates)],
        "least": schedule.least // schedule.processes, "tasks": schedule.tasks, "seed": schedule.seed * 1000 + number,
        "timeout_s": schedule.timeout_s, "naive": schedule.naive,
    }  # fmt: skip
    (folder / "plan").write_text(json.dumps(plan))
    named = {f"SPANFOLD_{key.upper()}": str(value) for key, value in settings.model_dump().items() if value is not None}
    program = Program(
        name=f"{settings.group}-appender-{number}",
        argv=[sys.executable, "-m", "tests.faults.appender"],
        env={**named, "APPENDER_FOLDER": str(folder)},
        cwd=folder,
    )
    running.append(Appender(scene.servers.forked(program).start(), folder))


def _answers(running: Iterable[Appender]) -> int:
    return sum("told" in line and line["verdict"] != "unknown" for each in running for line in each.diary())


def _work_goes_on(running: Sequence[Appender]) -> None:
    """Wait until some more appends have had their answer."""
    before = _answers(running)
    until(lambda: _answers(running) > before + 20, "more answers", within_s=PATIENCE_S)


def _kill_one(scene: Scene, schedule: Schedule, running: list[Appender]) -> None:
    """kill -9 of an appender with appends under way; another takes its place."""
    victim = scene.rng.choice([each for each in running if not each.may_end])
    until(lambda: _stopped_under_way(victim), f"{victim.process.program.name} has something under way")
    victim.may_end = True
    victim.process.end(signal.SIGKILL)
    scene.note("kill_appender")
    _start(scene, schedule, running)


def _stopped_under_way(appender: Appender) -> bool:
    """Stop it; if it waits for no answer just now, let it go on."""
    appender.process.send(signal.SIGSTOP)
    if appender.unanswered():
        return True
    appender.process.send(signal.SIGCONT)
    return False


def _verdicts(scene: Scene) -> Verdicts:
    with scene.ledger() as ledger:
        decided = {
            row[0].hex: row[1:]
            for row in _rows(
                ledger, "SELECT event_id, verdict, version, partition, kafka_offset FROM spanfold_core.first_verdicts"
            )
        }
        accepted = defaultdict[str, list[tuple[int, str]]](list)
        journal = "SELECT aggregate_id, version, event_id FROM spanfold_core.journal_services ORDER BY 1, 2"
        for aggregate, version, event_id in _rows(ledger, journal):
            accepted[aggregate].append((version, event_id.hex))
        heads = dict(_rows(ledger, "SELECT aggregate_id, version FROM spanfold_core.heads"))
    return Verdicts(decided, accepted, heads)


def _rows(ledger: psycopg.Connection[Any], query: str) -> list[Any]:
    return ledger.execute(query.encode()).fetchall()


def arbitrated(log: reference.Log) -> dict[str, tuple[str, int | None, int, int]]:
    """The first verdict on each event id of spanfold.services, by the words of docs/adr/0007."""
    heads: dict[bytes, int] = {}
    decided: dict[str, tuple[str, int | None, int, int]] = {}
    for record in log.records:
        if record.topic.name != "spanfold.services":
            continue
        headers, key = {name: (value or b"").decode() for name, value in record.headers}, record.key or b""
        event_id, head = uuid.UUID(headers["event_id"]).hex, heads.get(key, 0)
        if event_id in decided:
            continue
        if headers.get("expected_version", str(head)) == str(head):
            heads[key] = head + 1
            decided[event_id] = ("accepted", head + 1, record.partition, record.offset)
        else:
            decided[event_id] = ("conflict", None, record.partition, record.offset)
    return decided


def _differences(scene: Scene, found: Verdicts) -> Iterator[str]:
    """Between tables and log."""
    expected = arbitrated(reference.read_log(scene.workers.settings))
    if expected != found.decided:
        differing = [
            each for each in expected.keys() | found.decided.keys() if expected.get(each) != found.decided.get(each)
        ]
        yield f"{len(differing)} first verdicts differ: {[(expected.get(e), found.decided.get(e)) for e in differing[:3]]}"
    for aggregate, versions in found.accepted.items():
        if [version for version, _ in versions] != list(range(1, found.heads[aggregate] + 1)):
            yield f"{aggregate}: the versions are not 1 to {found.heads[aggregate]}"
    twice = [
        each for each, n in Counter(e for versions in found.accepted.values() for _, e in versions).items() if n > 1
    ]
    if twice:
        yield f"events accepted twice: {twice[:3]}"


def _lies(running: Sequence[Appender], verdicts: Verdicts, schedule: Schedule) -> Iterator[str]:
    """What somebody was told, and is not so. What a naive one believes is not what it was told."""
    if schedule.naive:
        return
    for appender in running:
        lines = appender.diary()
        last: dict[str, str] = {}
        for line in lines:
            if "told" in line:
                last[line["told"]] = line["verdict"]
                yield from _lie(line, verdicts.decided)
        if not appender.may_end:
            open_ones = [
                line["try"] for line in lines if "try" in line and last.get(line["try"]) not in ("accepted", "conflict")
            ]
            if open_ones:
                yield f"never answered: {open_ones[:3]}"


def _lie(line: Line, decided: Mapping[str, tuple[str, int | None, int, int]]) -> Iterator[str]:
    truth = decided.get(line["told"])
    match line["verdict"]:
        case "accepted":
            if truth != ("accepted", line["version"], line["partition"], line["offset"]):
                yield f"told {line}, but it is {truth}"
        case "conflict":
            if truth is None or truth[0] != "conflict":
                yield f"told {line}, but it is {truth}"


def drawn(seed: int, faults: Sequence[str]) -> list[str]:
    """The faults in an order of the seed's."""
    mixed = list(faults)
    random.Random(seed).shuffle(mixed)
    return mixed
