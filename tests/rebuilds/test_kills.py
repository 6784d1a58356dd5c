"""kill -9 at any moment of a rebuild: the live tables are untouched, and what is left can be gone on from or dropped."""

import os
import random
import time

import pytest

from spanfold.language.settings import Settings
from tests.support.commands import command
from tests.support.databases import Ledger
from tests.support.generations import NOTHING, leftovers, states
from tests.support.processes import SPANFOLD
from tests.support.publishing import publish
from tests.support.tables import rows
from tests.support.waiting import until
from tests.support.workers import Start, Worker, folded

pytestmark = pytest.mark.usefixtures("forkserver")

KILLS = 10 if os.environ.get("SPANFOLD_TEST_FAULTS") else 3
EVENTS = int(os.environ.get("SPANFOLD_TEST_EVENTS", "60000"))
"""Enough for processes to be started for loading."""

SHARE = """
SELECT 1 - p.behind / (
       SELECT sum(next_offset) FROM spanfold.checkpoints WHERE projection = 'journal' AND topic = 'spanfold.traces')
  FROM spanfold.projections p
 WHERE p.projection = 'traces' AND p.state IN ('loading', 'following')
"""
"""How much of the log the generation has that is being loaded; no row before there is one."""


def share(ledger: Ledger) -> float:
    row = ledger.execute(SHARE).fetchone()
    return -1.0 if row is None else float(row[0])


def reached_or_ended(ledger: Ledger, rebuild: Worker, part: float) -> None:
    until(
        lambda: share(ledger) >= part or rebuild.process.poll() is not None,
        f"{part:.0%} of the load",
        lambda: share(ledger),
    )


@pytest.mark.timeout(900)
def test_kill_9_at_any_moment_of_a_rebuild(
    stack_settings: Settings, ledger: Ledger, folding: Worker, start: Start
) -> None:
    publish(stack_settings, EVENTS, seed=5)
    folded(ledger, stack_settings, folding)
    before, rng, seen = rows(ledger), random.Random(9), []
    for number in range(KILLS):
        # from its first record to beyond the last, where indexes, comparison and swap come
        moment = rng.uniform(number, number + 1) / KILLS * 1.3
        begun = start(program=(*SPANFOLD, "rebuild", "traces"))
        reached_or_ended(ledger, begun, min(moment, 1.0))
        time.sleep(max(0.0, moment - 1))
        begun.kill()
        until(lambda: not leftovers(ledger)["sessions"], "the killed sessions' end", lambda: leftovers(ledger))
        assert rows(ledger) == before
        seen.append((f"{share(ledger):.2f}", *(state for name, _, state in states(ledger) if name == "traces")))
        way_out = ("rebuild", "traces", "--abort") if number % 2 else ("rebuild", "traces")
        done = command(stack_settings, *way_out)
        assert done.returncode == 0, done.stderr
        assert rows(ledger) == before
        assert leftovers(ledger) == NOTHING
    print(f"share loaded and states of the generations after each kill: {seen}")
    assert sum("loading" in each for each in seen) >= KILLS / 2, seen
    publish(stack_settings, 500, seed=6)
    folded(ledger, stack_settings, folding)
