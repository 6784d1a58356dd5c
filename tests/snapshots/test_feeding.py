"""Which changes of snapshots are fed together, and what of them the compacted topic can't hold."""

import pytest

from spanfold.kafka.topics import ensure_snapshots_topic
from spanfold.language.settings import Settings
from spanfold.language.topics import TRACES, TopicOnBroker
from spanfold.projections.states import feeding
from spanfold.projections.states.feeding import Fed
from spanfold.stream_processors.snapshots import feeder
from spanfold.stream_processors.snapshots.feeder import Feeder
from spanfold.stream_processors.worker.lag_watch import Watch
from spanfold.stream_processors.worker.metrics import Metrics
from tests.faults.states import fed_records
from tests.snapshots.progress import fed
from tests.support.databases import Ledger
from tests.support.stores import states_with

SNAPSHOT = """
INSERT INTO spanfold_core.snapshots (topic, partition, aggregate_id, fold_version, version, next_offset, sequence, state)
VALUES (%s, 0, %s, 1, 1, 1, %s, %s)
"""

ERASED = """
INSERT INTO spanfold_core.erased (topic, partition, aggregate_id, kafka_offset, log_time, sequence)
VALUES (%s, 0, 'erased', 1, now(), %s)
"""


@pytest.fixture
def changed(ledger: Ledger) -> Ledger:
    """Changes 1 to 5: the third is of an erased aggregate, the others are states of 100 bytes."""
    for sequence in (1, 2, 4, 5):
        ledger.execute(SNAPSHOT, (TRACES.name, f"trace-{sequence}", sequence, bytes(100)))
    ledger.execute(ERASED, (TRACES.name, 3))
    return ledger


@pytest.mark.parametrize(
    ("after", "limit", "limit_bytes", "expected"),
    [
        (0, 10, 1_000, [1, 2, 3, 4, 5]),
        (2, 10, 1_000, [3, 4, 5]),
        (0, 2, 1_000, [1, 2]),
        (0, 10, 200, [1, 2]),
        (0, 10, 201, [1, 2, 3, 4]),
        (0, 10, 1, [1]),
        (2, 10, 1, [3, 4]),
        (5, 10, 1_000, []),
    ],
)
def test_changes_come_in_their_order_and_no_more_than_fit(
    changed: Ledger, after: int, limit: int, limit_bytes: int, expected: list[int]
) -> None:
    found = feeding.changes(changed, Fed(TRACES.name, 0, after), 1, limit, limit_bytes)
    assert [change.sequence for change in found] == expected
    assert [change.aggregate_id for change in found if change.state is None] == ["erased"] * (3 in expected)


def test_a_state_that_outgrows_the_topic_leaves_a_tombstone(
    ledger: Ledger, stack_settings: Settings, topics: dict[str, TopicOnBroker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeder, "MAX_SNAPSHOT_BYTES", 2_000)
    ensure_snapshots_topic(stack_settings)
    store, traces = states_with(ledger), topics[TRACES.name]
    for sequence, trace_id in enumerate(("grows", "small"), 1):
        ledger.execute(SNAPSHOT, (TRACES.name, trace_id, sequence, bytes(100)))
    dsn = str(stack_settings.postgres_dsn)
    watch = Watch(stack_settings, dsn, [traces], store, Metrics())
    watch.owned = [(traces.name, 0)]
    with Feeder(stack_settings, dsn, [traces], store, watch):
        fed(ledger)
        grown = "UPDATE spanfold_core.snapshots SET state = %s, version = 2, sequence = 3 WHERE aggregate_id = 'grows'"
        ledger.execute(grown, (bytes(2_000),))
        fed(ledger)
    assert sorted(fed_records(stack_settings)) == [
        (b"spanfold.traces/grows", 1, bytes(100)),
        (b"spanfold.traces/grows", 2, None),
        (b"spanfold.traces/small", 1, bytes(100)),
    ]
