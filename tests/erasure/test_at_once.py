"""Erasures while others commit: halfway there is nothing, and whoever comes second sees what the other has done."""

import asyncio
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

import psycopg
import pytest

from spanfold.application.aggregates import TraceAggregate
from spanfold.application.event_store import Snapshot
from spanfold.bootstrap import event_store
from spanfold.language.events import TraceCompleted
from spanfold.language.partitioning import partitions_of
from spanfold.language.settings import Settings
from spanfold.language.topics import TRACES
from spanfold.operations.erasure import contents_to_erase
from spanfold.operations.installation import Installation
from spanfold.projections.commit.batch import Batch
from spanfold.projections.commit.store import Store
from spanfold.projections.history.snapshots import SAVE
from spanfold.projections.projection import installed
from tests.erasure.log_with_erasure import LOG, OTHERS, TRACE, commit
from tests.support.databases import Ledger
from tests.support.erasure import erased, tables_with
from tests.support.stores import Stop
from tests.support.strategies import NOW, Record, batch, record
from tests.support.ten_traces import EVENTS
from tests.support.trace_rows import checkpoints, shown, told, verdicts
from tests.support.waiting import until

IDS = [f"4711-{number}" for number in range(40)]


@pytest.mark.parametrize("step", ["before_merge", "before_commit"])
def test_an_erasure_that_stops_halfway_has_erased_nothing(ledger: Ledger, step: str) -> None:
    store = Store(installed())
    commit(ledger, store, [batch(LOG[:22])])

    def stop(reached: str) -> None:
        if reached == step:
            raise Stop

    store.reached = stop
    with pytest.raises(Stop):
        commit(ledger, store, [batch(LOG[22:])])
    assert shown(ledger) == told(EVENTS[:22])
    assert checkpoints(ledger) == {22}
    assert ledger.execute("SELECT count(*) FROM spanfold_core.erased").fetchone() == (0,)
    store.reached = lambda _: None
    commit(ledger, store, [batch(LOG[22:])])
    assert shown(ledger) == told(OTHERS)


def test_of_two_that_commit_the_same_erasures_at_once_one_is_fenced(ledger: Ledger, stack_settings: Settings) -> None:
    parts = [batch(LOG[at : at + 4]) for at in range(0, len(LOG), 4)]
    at_once(stack_settings, [parts, parts])
    assert shown(ledger) == told(OTHERS)
    assert sorted(verdicts(ledger).values()).count("erased") == 6
    assert tables_with(ledger, TRACE) == []


def test_whichever_partition_comes_first_no_stray_record_names_an_erased_trace(
    ledger: Ledger, stack_settings: Settings
) -> None:
    homes = dict(zip(IDS, partitions_of([each.encode() for each in IDS], 2).tolist(), strict=True))
    logs: list[list[Batch]] = []
    for partition in (0, 1):
        records: list[Record] = []
        for trace_id in IDS:
            at = len(records)
            end = TraceCompleted(aggregate_id=trace_id, occurred_at=NOW, source="test", end_time=NOW)
            if homes[trace_id] == partition:
                records += [record(end, at), erased(trace_id, at + 1)]
            else:
                broken = replace(record(end, at + 1), headers=[])
                records += [record(end, at), broken]
        logs.append(
            [batch(records[at : at + 3], partition=partition, partitions=2) for at in range(0, len(records), 3)]
        )
    at_once(stack_settings, logs)
    counts = dict(ledger.execute("SELECT verdict, count(*) FROM spanfold.verdicts GROUP BY 1").fetchall())
    assert counts == {"misrouted": len(IDS), "malformed": len(IDS)}
    assert tables_with(ledger, "4711-") == []


def saved(settings: Settings, trace_id: str) -> None:
    """An application saves a snapshot of the trace."""

    async def save() -> None:
        async with event_store(settings, timeout_s=60) as store:
            state = TraceAggregate.as_plain(TraceAggregate.initial(trace_id))
            await store.save_snapshot(TRACES, Snapshot(trace_id, 1, TraceAggregate.fold_version, state))

    asyncio.run(save())


def test_a_snapshot_that_is_saved_after_the_erasure_is_not_kept(ledger: Ledger, stack_settings: Settings) -> None:
    commit(ledger, Store(installed()), [batch(LOG[:41])])
    for trace_id in (TRACE, "trace 4"):
        saved(stack_settings, trace_id)
    assert ledger.execute("SELECT aggregate_id FROM spanfold_core.saved_snapshots").fetchall() == [("trace 4",)]
    assert tables_with(ledger, TRACE) == []


def test_a_snapshot_that_is_saved_while_the_trace_is_erased_is_not_kept(
    ledger: Ledger, stack_settings: Settings
) -> None:
    store = Store(installed())
    with ThreadPoolExecutor(1) as pool, psycopg.connect(str(stack_settings.postgres_dsn), autocommit=True) as erasing:

        def save_now(step: str) -> None:
            if step == "before_commit":
                saving.append(pool.submit(saved, stack_settings, TRACE))
                until_it_waits(ledger, saving[0])

        saving: list[Future[None]] = []
        store.reached = save_now
        commit(erasing, store, [batch(LOG[:41])])
        saving[0].result(60)
    assert tables_with(ledger, TRACE) == []


def test_an_erasure_waits_for_who_is_saving_a_snapshot(ledger: Ledger, stack_settings: Settings) -> None:
    parameters = {"topic": TRACES.name, "aggregate_id": TRACE, "fold_version": 1, "version": 1, "state": "{}"}
    with ThreadPoolExecutor(1) as pool, psycopg.connect(str(stack_settings.postgres_dsn)) as saving:
        saving.execute(SAVE.encode(), parameters)
        erasing = pool.submit(at_once, stack_settings, [[batch(LOG[:41])]])
        until_it_waits(ledger, erasing)
        saving.commit()
        erasing.result(60)
    assert tables_with(ledger, TRACE) == []


def test_what_there_is_of_a_trace_is_counted_as_of_one_moment(ledger: Ledger, stack_settings: Settings) -> None:
    store, dsn = Store(installed()), str(stack_settings.postgres_dsn)
    commit(ledger, store, [batch(LOG[:14])])
    with ThreadPoolExecutor(1) as pool, psycopg.connect(dsn) as holding:
        # which is counted between the rows of spans and the spans that the trace has counted
        holding.execute("LOCK TABLE logs_g1.logs")
        counting = pool.submit(contents_to_erase, Installation(stack_settings), TRACE)
        until_it_waits(ledger, counting)
        commit(ledger, store, [batch(LOG[14:22])])
        holding.rollback()
        found = counting.result(60)
    assert (found.rows["spans"], found.span_count) == (1, 1)
    assert contents_to_erase(Installation(stack_settings), TRACE).span_count == 2


def until_it_waits(ledger: Ledger, done: Future[Any]) -> None:
    """Until a session waits for a table's lock, or this is done."""
    waits = partial(ledger.execute, "SELECT pid, mode FROM pg_locks WHERE locktype = 'relation' AND NOT granted")
    until(lambda: done.done() or waits().fetchall() != [], "somebody waits", lambda: waits().fetchall())


def at_once(settings: Settings, logs: list[list[Batch]]) -> None:
    """Commit each list of batches over a connection of its own, all at the same time."""
    all_are_here = threading.Barrier(len(logs))

    def one(parts: list[Batch]) -> None:
        with psycopg.connect(str(settings.postgres_dsn), autocommit=True) as connection:
            all_are_here.wait(30)
            commit(connection, Store(installed()), parts)

    with ThreadPoolExecutor(len(logs)) as pool:
        list(pool.map(one, logs))
