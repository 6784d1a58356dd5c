"""Appends that expect a version, while appenders, workers and Postgres are killed: one winner for each version, and nobody is
told what is not so. The negative control does what looks right, reading the version before it produces, and has double winners.
"""

import os
from dataclasses import replace

import pytest

from tests.faults.appends import Result, Schedule, drawn, run
from tests.support.victims import Servers

SHORT = Schedule(
    seed=1, processes=4, least=600, faults=["kill_appender", "kill_worker_anywhere", "worker_joins", "restart_postgres"]
)
LONG = Schedule(
    seed=2,
    processes=16,
    least=20_000,
    aggregates=8,
    faults=drawn(
        2,
        [
            *["kill_appender"] * 4, *["kill_worker_anywhere"] * 2, "worker_joins", "worker_leaves", "restart_postgres",
            "crash_postgres", "cut_connections",
        ],
    ),
)  # fmt: skip

FULL = pytest.mark.skipif(not os.environ.get("SPANFOLD_TEST_FAULTS"), reason="set SPANFOLD_TEST_FAULTS=1")


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("schedule", [pytest.param(SHORT, id="short"), pytest.param(LONG, id="long", marks=FULL)])
def test_each_version_has_one_winner_and_nobody_is_told_a_lie(victims: Servers, schedule: Schedule) -> None:
    result = run(victims, schedule)
    print(result)
    assert result.lies == []
    assert result.appends >= schedule.least
    assert result.believed_twice == 0
    share = result.count("conflict") / (result.count("conflict") + result.count("accepted"))
    assert share >= 0.3, f"{share:.0%} conflicts prove little"
    assert result.killed == schedule.faults.count("kill_appender")
    assert result.unanswered, "no append was under way in a process that was killed"
    assert result.count("unknown"), "every append had its answer in time: the faults have not bitten"
    assert _resolved(result)


def _resolved(result: Result) -> int:
    """How many appends were unknown first, and known in the end."""
    found = 0
    for lines in result.told:
        unknown = {line["told"] for line in lines if line.get("verdict") == "unknown"}
        found += len(unknown & {line["told"] for line in lines if line.get("verdict") in ("accepted", "conflict")})
    return found


@pytest.mark.timeout(900)
def test_who_reads_the_version_and_produces_without_expecting_it_wins_twice(victims: Servers) -> None:
    result = run(victims, replace(SHORT, naive=True))
    print(result)
    assert result.believed_twice, "the negative control shows nothing"
