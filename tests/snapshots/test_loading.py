"""Aggregates are loaded from what the snapshot worker keeps, and `spanfold snapshot now` takes it."""

import json
from typing import Any

import pytest

from spanfold.application.aggregates import ChangeServiceHealth, ServiceAggregate, TraceAggregate
from spanfold.application.domain import InstanceStatus
from spanfold.application.event_store import HeldUp, Snapshot
from spanfold.application.execution import execute, load
from spanfold.bootstrap import event_store
from spanfold.language.events import SpanRecorded, TraceCreated
from spanfold.language.settings import Settings
from spanfold.language.times import now_us
from spanfold.language.topics import SERVICES, TRACES
from tests.contracts.event_store import fresh, register
from tests.faults.states import snapshots
from tests.snapshots.progress import folded
from tests.support.commands import command
from tests.support.databases import Ledger
from tests.support.workers import SNAPSHOTS, Start

pytestmark = pytest.mark.usefixtures("forkserver")


def healthy(instance: str) -> ChangeServiceHealth:
    return ChangeServiceHealth(aggregate_id=instance, status=InstanceStatus.HEALTHY)


async def test_an_aggregate_is_its_state_and_what_came_behind_it(
    stack_settings: Settings, ledger: Ledger, start: Start
) -> None:
    start()
    worker, instance, trace_id = start(program=SNAPSHOTS), fresh(), fresh()
    async with event_store(stack_settings, timeout_s=60) as store:
        await execute(store, ServiceAggregate, register(instance))
        folded(ledger, stack_settings, worker)
        kept = await store.get_snapshot(SERVICES, instance, ServiceAggregate.fold_version)
        assert kept
        assert kept.version == 1
        # who loads from it need not read what lies before it
        await execute(store, ServiceAggregate, healthy(instance))
        assert worker.stop() == 0
        ledger.execute("UPDATE spanfold_core.journal_services SET payload = NULL WHERE version = 1")
        loaded = await load(store, ServiceAggregate, instance)
        assert loaded.state.instance
        assert (loaded.version, loaded.state.instance.status) == (2, InstanceStatus.HEALTHY)
        assert await store.get_snapshot(SERVICES, instance, 99) is None
        assert await store.get_snapshot(TRACES, trace_id, TraceAggregate.fold_version) is None


async def test_the_later_one_of_two_snapshots_is_taken(stack_settings: Settings, ledger: Ledger, start: Start) -> None:
    start()
    worker, instance = start(program=SNAPSHOTS), fresh()
    async with event_store(stack_settings, timeout_s=60) as store:
        await execute(store, ServiceAggregate, register(instance))
        folded(ledger, stack_settings, worker)
        saved = Snapshot(instance, 2, ServiceAggregate.fold_version, {"instance_id": instance, "instance": None})
        await store.save_snapshot(SERVICES, saved)
        assert await store.get_snapshot(SERVICES, instance, ServiceAggregate.fold_version) == saved


async def test_what_is_parked_is_not_passed_over(stack_settings: Settings, ledger: Ledger, start: Start) -> None:
    start()
    worker, trace_id, at = start(program=SNAPSHOTS), fresh(), now_us()
    said: dict[str, Any] = {"aggregate_id": trace_id, "source": "test", "service_name": "s", "operation_name": "o"}
    created = TraceCreated(occurred_at=at, start_time=at, **said)
    # accepted, and not to be folded: it ends before it starts
    parked = SpanRecorded(occurred_at=at, span_id="1", parent_span_id=None, start_time=at, end_time=at - 1, **said)
    async with event_store(stack_settings, timeout_s=60) as store:
        await store.append_event(parked)
        await store.append_event(created)
        folded(ledger, stack_settings, worker)
        assert ledger.execute("SELECT count(*) FROM spanfold_core.states").fetchone() == (1,)
        with pytest.raises(HeldUp, match="end_time lies before start_time"):
            await load(store, TraceAggregate, trace_id)


async def test_snapshot_now_takes_what_is_in_none(stack_settings: Settings, ledger: Ledger, start: Start) -> None:
    early = command(stack_settings, "snapshot", "now", "--type", "service")
    assert (early.returncode, "start `spanfold worker snapshots`" in early.stderr) == (3, True)
    start()
    worker, instances = start(program=SNAPSHOTS), [fresh() for _ in range(3)]
    async with event_store(stack_settings, timeout_s=60) as store:
        for instance in instances:
            await execute(store, ServiceAggregate, register(instance))
    folded(ledger, stack_settings, worker)
    for taken in (3, 0):
        done = command(stack_settings, "snapshot", "now", "--type", "service", "--json")
        assert json.loads(done.stdout) == [{"type": "service", "taken": taken, "snapshots": 3, "behind": 0}], (
            done.stderr
        )
    assert set(snapshots(ledger)) == {f"spanfold.services/{instance}".encode() for instance in instances}
    unknown = command(stack_settings, "snapshot", "now", "--type", "nobody")
    assert (unknown.returncode, "expected one of metric_series, " in unknown.stderr) == (2, True)
