"""An erased trace is in no state, no snapshot and nothing that is rebuilt from them; in the compacted topic it is a tombstone."""

import pytest

from spanfold.language.settings import Settings
from spanfold.stream_processors.rebuild import rebuild as rebuilding
from tests.erasure.long_trace import TRACE, assert_nowhere, done, others, publish, story
from tests.faults import reference
from tests.faults.states import expected_states, kept, last_values, snapshots, take_all
from tests.snapshots.progress import fed, folded
from tests.support.databases import Ledger
from tests.support.generations import at_work
from tests.support.workers import SNAPSHOTS, Start
from tests.support.workers import folded as projected

pytestmark = pytest.mark.usefixtures("forkserver")


def test_an_erased_trace_is_in_nothing_that_the_snapshot_worker_keeps(
    stack_settings: Settings, ledger: Ledger, start: Start
) -> None:
    projector, worker = start(), start(program=SNAPSHOTS)
    key = f"spanfold.traces/{TRACE}".encode()
    publish(stack_settings, *others(200, 1), *story())
    folded(ledger, stack_settings, worker)
    take_all(ledger, stack_settings)
    publish(stack_settings, *others(50, 2), *story()[-1:])
    fed(ledger)
    assert key in snapshots(ledger)
    assert last_values(stack_settings)[key] is not None

    assert done(stack_settings, "erase", TRACE, "--yes")["rows"]["snapshots"] == 1
    publish(stack_settings, *story(), *others(50, 3))
    projected(ledger, stack_settings, projector)
    folded(ledger, stack_settings, worker)
    log = reference.read_log(stack_settings)
    wanted = {each: said for each, said in expected_states(log, stack_settings.partitions).items() if each[1] != TRACE}
    assert kept(ledger) == wanted
    take_all(ledger, stack_settings)
    fed(ledger)
    found = last_values(stack_settings)
    assert found.pop(key) is None
    assert found == snapshots(ledger)
    assert_nowhere(stack_settings, ledger)

    with at_work(stack_settings) as context:
        result = rebuilding.rebuild(context, 2, from_snapshot=True)
    assert all(each.equal for each in result.parity)
    assert_nowhere(stack_settings, ledger)
    assert (projector.stop(), worker.stop()) == (0, 0)
