"""Snapshots and the log's tail make the rows that the whole log makes."""

import os

import pytest

from spanfold.language.settings import Settings
from spanfold.stream_processors.rebuild import rebuild as rebuilding
from tests.snapshots.progress import folded
from tests.support.commands import command
from tests.support.databases import Ledger
from tests.support.generations import at_work
from tests.support.publishing import publish_mixed
from tests.support.tables import rows
from tests.support.workers import SNAPSHOTS, Start
from tests.support.workers import folded as projected

pytestmark = pytest.mark.usefixtures("topics", "forkserver")

EVENTS = int(os.environ.get("SPANFOLD_TEST_EVENTS", "8000"))
"""How many events are folded into states; a quarter as many come after them."""


def test_a_rebuild_from_snapshots_gives_the_rows_that_are_live(
    stack_settings: Settings, ledger: Ledger, start: Start
) -> None:
    projector = start()
    eager = stack_settings.model_copy(update={"snapshot_every_records": 4})
    worker = start(eager, program=SNAPSHOTS)
    publish_mixed(stack_settings, EVENTS)
    folded(ledger, stack_settings, worker, projector)
    assert worker.stop() == 0
    publish_mixed(stack_settings, EVENTS // 4, seed=2)
    projected(ledger, stack_settings, projector)
    live = rows(ledger)
    with at_work(stack_settings) as context:
        result = rebuilding.rebuild(context, 2, from_snapshot=True)
    print(result)
    assert all(each.equal for each in result.parity)
    assert result.states > EVENTS // 20
    assert 0 < result.records < EVENTS
    assert rows(ledger) == live


def test_what_can_not_begin_with_snapshots_is_refused(stack_settings: Settings, ledger: Ledger) -> None:
    refused = command(stack_settings, "rebuild", "metrics", "--from-snapshot")
    assert refused.returncode == 3
    assert "metrics can't be rebuilt from snapshots: its rows are no function of the states" in refused.stderr
    refused = command(stack_settings, "rebuild", "traces", "--from-snapshot")
    assert refused.returncode == 3
    assert "has no snapshots: let `spanfold worker snapshots` fold it first" in refused.stderr
