"""Erasures while others commit: halfway there is nothing, and whoever comes second sees what the other has done."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import psycopg
import pytest

from projections.batch import Batch
from projections.projection import installed
from projections.store import Store
from spanfold.events import TraceCompleted
from spanfold.partitioning import partitions_of
from spanfold.settings import Settings
from tests.erasure.conftest import Ledger, erased, tables_with
from tests.erasure.test_verdicts import LOG, OTHERS, TRACE, commit
from tests.projections.reference import checkpoints, shown, told, verdicts
from tests.projections.strategies import NOW, batch, record
from tests.projections.test_store import EVENTS, Stop

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
        records = []
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


def at_once(settings: Settings, logs: list[list[Batch]]) -> None:
    """Commit each list of batches over a connection of its own, all at the same time."""
    all_are_here = threading.Barrier(len(logs))

    def one(parts: list[Batch]) -> None:
        with psycopg.connect(str(settings.postgres_dsn), autocommit=True) as connection:
            all_are_here.wait(30)
            commit(connection, Store(installed()), parts)

    with ThreadPoolExecutor(len(logs)) as pool:
        list(pool.map(one, logs))
