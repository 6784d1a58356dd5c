"""kill -9 at any moment of a rebuild: the live tables are untouched, and what is left can be gone on from or dropped."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest

from spanfold.settings import Settings
from tests.rebuilds.conftest import NOTHING, Ledger, command, environment, folded, leftovers, publish, rows, states
from tests.stream_processors.conftest import Worker, until

KILLS = 10 if os.environ.get("SPANFOLD_TEST_FAULTS") else 3
EVENTS = int(os.environ.get("SPANFOLD_TEST_EVENTS", "60000"))
"""Enough for processes to be started for loading."""


@pytest.mark.timeout(900)
def test_kill_9_at_any_moment_of_a_rebuild(stack_settings: Settings, ledger: Ledger, folding: Worker) -> None:
    publish(stack_settings, EVENTS, seed=5)
    folded(ledger, stack_settings, folding)
    before = rows(ledger)
    began = time.monotonic()
    done = command(stack_settings, "rebuild", "traces")
    assert done.returncode == 0, done.stderr
    undisturbed_s = time.monotonic() - began

    rng, seen = random.Random(9), []
    for number in range(KILLS):
        after_s = undisturbed_s * (number + rng.random()) / KILLS
        begun = subprocess.Popen(
            [sys.executable, "-m", "spanfold", "rebuild", "traces"],
            env=environment(stack_settings), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        time.sleep(after_s)
        begun.send_signal(signal.SIGKILL)
        begun.wait(10)
        until(lambda: not leftovers(ledger)["sessions"], "the killed sessions' end", lambda: leftovers(ledger))
        assert rows(ledger) == before
        seen.append([state for name, _, state in states(ledger) if name == "traces"])
        way_out = ("rebuild", "traces", "--abort") if number % 2 else ("rebuild", "traces")
        done = command(stack_settings, *way_out)
        assert done.returncode == 0, done.stderr
        assert rows(ledger) == before
        assert leftovers(ledger) == NOTHING
    print(f"an undisturbed rebuild took {undisturbed_s:.1f} s; states after the kills: {seen}")
    assert any("loading" in each for each in seen), seen
    publish(stack_settings, 500, seed=6)
    folded(ledger, stack_settings, folding)
