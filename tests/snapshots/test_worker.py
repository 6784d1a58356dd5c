"""The snapshot worker as a process, on a real log: states are those of the write side's evolve, snapshots follow the policy, and
the compacted topic has what Postgres has.
"""

from spanfold.settings import Settings
from tests.faults import reference
from tests.snapshots.conftest import (
    SNAPSHOTS,
    Ledger,
    Start,
    expected_states,
    fed,
    folded,
    kept,
    last_values,
    publish_mixed,
    snapshots,
    take_all,
)


def test_states_are_those_of_the_log_and_the_topic_has_every_snapshot(
    stack_settings: Settings, ledger: Ledger, start: Start
) -> None:
    start()
    settings = stack_settings.model_copy(
        update={"snapshot_every_records": 5, "snapshot_quiet_s": 0.0, "batch_records": 500}
    )
    worker = start(settings, program=SNAPSHOTS)
    publish_mixed(stack_settings, 8_000)
    folded(ledger, stack_settings, worker)
    wanted = expected_states(reference.read_log(stack_settings), stack_settings.partitions)
    assert len(wanted) > 500
    assert kept(ledger) == wanted
    assert snapshots(ledger)
    take_all(ledger, stack_settings)
    assert kept(ledger) == wanted
    fed(ledger)
    assert last_values(stack_settings) == snapshots(ledger)
    assert worker.stop() == 0
