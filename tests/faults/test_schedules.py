"""A few fixed schedules of faults; `make faults` runs many."""

import pytest

from tests.faults.schedule import Plan, run
from tests.faults.workers import SNAPSHOTS
from tests.support.victims import Servers

PLANS = (
    Plan(101, faults=("kill_worker_at_a_point", "cut_after_commit", "kill_broker"), events=6_000),
    Plan(102, batch_records=200, faults=("zombie", "terminate_backends", "crash_postgres"), events=6_000),
    Plan(
        103, faults=("suspend_projection", "kill_worker_at_a_point", "suspend_traces"), events=6_000, suspensions=True
    ),
    Plan(110, faults=("kill_feeder_at_a_point", "cut_after_commit"), events=5_000, victims=SNAPSHOTS),
    Plan(111, batch_records=200, faults=("zombie_feeder", "crash_postgres"), events=5_000, victims=SNAPSHOTS),
)


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: f"{plan.victims.name}:{'+'.join(plan.faults)}")
def test_after_a_schedule_of_faults_every_table_is_what_the_log_says(victims: Servers, plan: Plan) -> None:
    report = run(victims, plan)
    assert report.ok, report
    assert report.acknowledged >= plan.events
    assert report.duplicates
    assert report.uncommitted
    assert report.redelivered, "nothing was delivered twice: the faults have not bitten"
