"""The protections, left out one by one in the workers of these tests: the damage shows, so the schedules would have seen it."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import pytest

from spanfold.language.topics import LOGS
from tests.faults.injuries import make_zombie
from tests.faults.schedule import Plan, Report, conclude, stage
from tests.support.victims import Servers

TWICE = """
SELECT count(*) FROM (
    SELECT FROM spanfold.verdicts GROUP BY topic, partition, kafka_offset HAVING count(*) > 1
) AS judged_twice
"""

ZOMBIE = Plan(106, batch_records=200, events=5_000, clean=True)
"""Nothing is published twice: all that is counted twice is the zombie's. It stops at logs: the fold of traces finds a span that
is recorded again by itself.
"""
REPUBLISHING = Plan(107, workers=1, events=3_000)


class Outcome(NamedTuple):
    """`twice`: how many positions have two verdicts. `wrong`: the tables that are not what the log says."""

    report: Report
    twice: int
    wrong: set[str]


def fold(victims: Servers, plan: Plan, without: str) -> Outcome:
    with stage(victims, plan, without) as (scene, load, report):
        load.start()
        if plan is ZOMBIE:
            make_zombie(scene, "before_begin", LOGS)
        load.finish()
        conclude(scene, load, report)
        with scene.ledger() as ledger:
            [(twice,)] = ledger.execute(TWICE.encode()).fetchall()
    wrong = {line.split(":")[0] for line in report.differences if not line.startswith(" ")}
    return Outcome(report, int(str(twice)), wrong)


CONTROLS = {
    "nothing is left out": (ZOMBIE, ""),
    "neither compare nor duplicates": (ZOMBIE, "compare duplicates"),
    "no compare": (ZOMBIE, "compare"),
    "no duplicates": (REPUBLISHING, "duplicates"),
}

Outcomes = Mapping[str, Outcome]


@pytest.fixture(scope="module")
def outcomes(victims: Servers) -> Outcomes:
    """All at once: most of the time they wait for a session to end."""
    with ThreadPoolExecutor(len(CONTROLS)) as pool:
        running = {name: pool.submit(fold, victims, *control) for name, control in CONTROLS.items()}
        return {name: outcome.result() for name, outcome in running.items()}


def test_with_every_protection_a_zombies_batch_is_fenced(outcomes: Outcomes) -> None:
    report, twice, _ = outcomes["nothing is left out"]
    assert report.ok, report
    assert report.redelivered, report
    assert report.fenced, report
    assert not twice


def test_without_checkpoints_and_duplicates_a_zombies_batch_is_counted_twice(outcomes: Outcomes) -> None:
    report, _, wrong = outcomes["neither compare nor duplicates"]
    assert report.redelivered, report
    assert report.doubled, report
    assert "logs" in wrong


def test_without_checkpoints_accepted_positions_are_judged_again(outcomes: Outcomes) -> None:
    report, twice, wrong = outcomes["no compare"]
    assert report.redelivered, report
    assert twice, report
    assert "verdicts" in wrong


def test_without_the_duplicate_check_what_is_published_again_is_counted_again(outcomes: Outcomes) -> None:
    report, _, wrong = outcomes["no duplicates"]
    assert report.doubled, report
    assert "logs" in wrong
