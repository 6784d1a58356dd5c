"""The snapshot worker as a process, on a real log: states are those of the write side's evolve, snapshots follow the policy, and
the compacted topic has what Postgres has.
"""

from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from spanfold.kafka.client import kafka_config
from spanfold.kafka.topics import MAX_SNAPSHOT_BYTES
from spanfold.language.settings import Settings
from spanfold.language.topics import SNAPSHOTS_TOPIC, TRACES
from tests.faults import reference
from tests.faults.states import expected_states, kept, last_values, snapshots, take_all
from tests.snapshots.progress import fed, folded
from tests.support.databases import Ledger
from tests.support.publishing import publish_mixed
from tests.support.waiting import until
from tests.support.workers import SNAPSHOTS, Start, health_of, metrics_of

UNFED = "the topic of snapshots has not been fed"


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


def test_a_topic_that_takes_no_snapshots_is_told_of(stack_settings: Settings, ledger: Ledger, start: Start) -> None:
    projector, worker = (
        start(),
        start(
            stack_settings.model_copy(update={"snapshot_every_records": 1, "stalled_after_s": 3.0}), program=SNAPSHOTS
        ),
    )
    until(lambda: health_of(worker) == (200, []), "a worker that is well", worker.output)
    takes_at_most(stack_settings, 100)
    publish_mixed(stack_settings, 500)
    until(lambda: is_unfed(*health_of(worker)), "a worker that is unwell for that alone", lambda: health_of(worker))
    assert metrics_of(worker)["spanfold_feeding_failures_total",] >= 1
    assert ("spanfold_snapshots_fed_total", TRACES.name) not in metrics_of(worker)
    takes_at_most(stack_settings, MAX_SNAPSHOT_BYTES)
    folded(ledger, stack_settings, worker, projector)
    fed(ledger)
    until(lambda: health_of(worker) == (200, []), "a worker that is well again", worker.output)
    assert metrics_of(worker)["spanfold_snapshots_fed_total", TRACES.name] > 0


def is_unfed(status: int, problems: list[str]) -> bool:
    """On a busy machine it also is behind the log for a while."""
    return status == 503 and [problem.partition(" for ")[0] for problem in problems] == [UNFED]


def takes_at_most(settings: Settings, max_bytes: int) -> None:
    """Batches of this size, from here on."""
    entry = ConfigEntry("max.message.bytes", str(max_bytes), incremental_operation=AlterConfigOpType.SET)
    topic = ConfigResource(ResourceType.TOPIC, f"{settings.topic_prefix}{SNAPSHOTS_TOPIC}", incremental_configs=[entry])
    admin = AdminClient(kafka_config(settings))
    admin.incremental_alter_configs([topic])[topic].result()
