"""The protections of snapshot workers, left out one by one; see test_negative_controls.py."""

import signal
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple

import pytest

from tests.faults.feeder_injuries import feeding, make_zombie_feeder, stop_feeding
from tests.faults.injuries import Scene, make_zombie
from tests.faults.schedule import Plan, Report, conclude, stage
from tests.faults.workers import SNAPSHOTS, Worker
from tests.support.victims import Servers
from tests.support.waiting import until

PLAN = Plan(112, batch_records=200, events=5_000, clean=True, victims=SNAPSHOTS)


class Outcome(NamedTuple):
    """`wrong`: what is not as the log says, of states, snapshots, the topic."""

    report: Report
    wrong: set[str]


def both_zombies(scene: Scene) -> None:
    make_zombie(scene, "before_merge")
    make_zombie_feeder(scene, "before_produce")


def overtaken_at_its_merge(scene: Scene) -> None:
    """It has read what is kept, others fold what follows, and it writes what it has made of the old."""
    worker = scene.any_worker()
    worker.arm("before_merge", 1, signal.SIGSTOP)
    until(lambda: worker.bit, "before_merge is reached")
    try:
        scene.workers.settled(len(scene.workers.running) - 1)
        until(lambda: _is_overtaken(scene, worker), "others are further")
    finally:
        worker.process.send(signal.SIGCONT)


def _is_overtaken(scene: Scene, zombie: Worker) -> bool:
    *_, (topic, partition, _, end, _) = zombie.attempts()
    others = (attempt for each in scene.workers.all if each is not zombie for attempt in each.attempts())
    return any((topic, partition) == (name, number) and start > end + 100 for name, number, start, _, _ in others)


def overtaken_while_it_feeds(scene: Scene) -> None:
    """It has read snapshots, others take and feed later ones, and it feeds what it has read."""
    worker = scene.any_worker()
    stop_feeding(scene, worker, "before_produce")
    while _holds_locks(scene):
        worker.process.send(signal.SIGCONT)
        stop_feeding(scene, worker, "before_produce")
    try:
        scene.workers.settled(len(scene.workers.running) - 1)
        for _ in range(3):
            _await_feeding(scene, worker)
    finally:
        worker.process.send(signal.SIGCONT)


def _holds_locks(scene: Scene) -> bool:
    """Whether somebody stands still within a transaction: then nobody could go past."""
    time.sleep(1.5)
    with scene.ledger() as ledger:
        return ledger.execute(STANDING_STILL).fetchone() is not None


STANDING_STILL: Final = """
SELECT FROM pg_stat_activity
 WHERE application_name = 'spanfold snapshots' AND datname = current_database()
   AND state = 'idle in transaction' AND now() - state_change > '1 second'
"""


def _await_feeding(scene: Scene, worker: Worker) -> None:
    """Wait until the topic has more of the partition that the worker was feeding."""
    topic, partition, _ = feeding(worker)
    query = "SELECT sequence FROM spanfold_core.snapshot_feed WHERE (topic, partition) = (%s, %s)"
    with scene.ledger() as ledger:
        before = ledger.execute(query, (topic, partition)).fetchall()
        until(lambda: ledger.execute(query, (topic, partition)).fetchall() != before, "more is fed")


CONTROLS: Mapping[str, tuple[Callable[[Scene], None], str]] = {
    "nothing is left out": (both_zombies, ""),
    "no compare": (overtaken_at_its_merge, "compare"),
    "no fencing": (overtaken_while_it_feeds, "fencing"),
}

Outcomes = Mapping[str, Outcome]


def fold(victims: Servers, injure: Callable[[Scene], None], without: str) -> Outcome:
    with stage(victims, PLAN, without) as (scene, load, report):
        load.start()
        scene.workers.settled(PLAN.workers)
        injure(scene)
        scene.workers.settled(len(scene.workers.running))
        load.finish()
        conclude(scene, load, report)
    return Outcome(report, {line.split(":")[0] for line in report.differences if not line.startswith(" ")})


@pytest.fixture(scope="module")
def outcomes(victims: Servers) -> Outcomes:
    """All at once: most of the time they wait for a session to end."""
    with ThreadPoolExecutor(len(CONTROLS)) as pool:
        running = {name: pool.submit(fold, victims, *control) for name, control in CONTROLS.items()}
        return {name: outcome.result() for name, outcome in running.items()}


def test_with_every_protection_zombies_change_nothing(outcomes: Outcomes) -> None:
    report, _ = outcomes["nothing is left out"]
    assert report.ok, report
    assert report.redelivered, report


def test_without_the_checkpoint_a_zombie_puts_old_states_over_newer_ones(outcomes: Outcomes) -> None:
    report, wrong = outcomes["no compare"]
    assert {"states", "snapshots"} <= wrong, report


def test_without_fencing_the_topic_ends_with_old_snapshots(outcomes: Outcomes) -> None:
    report, wrong = outcomes["no fencing"]
    assert wrong == {"the topic"}, report
