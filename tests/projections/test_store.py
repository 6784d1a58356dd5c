"""Law 2, at the store: rows, verdicts and the next offset are committed together, once, whoever commits and how often."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from spanfold.language.errors import Misconfigured
from spanfold.language.events import SpanRecorded, TraceCompleted
from spanfold.language.partitioning import partitions_of
from spanfold.language.settings import Settings
from spanfold.projections.commit.batch import Batch, Gap, Outcome
from spanfold.projections.commit.store import Store
from spanfold.projections.projection import installed
from spanfold.schemas.codec import Codec
from tests.support.databases import Ledger
from tests.support.stores import Forgetful, Stop, rows_of, with_second
from tests.support.strategies import DAY, LOG_TIME_MS, NOW, Record, batch, record
from tests.support.ten_traces import EVENTS, LOG
from tests.support.trace_rows import Rows, checkpoints, shown, told, verdicts


@pytest.fixture
def store() -> Store:
    return Store(installed())


def commit(ledger: Ledger, store: Store, one: Batch) -> list[Outcome]:
    return store.commit(ledger, store.prepare(one))


# Fences


def test_a_batch_that_comes_again_is_fenced(ledger: Ledger, store: Store) -> None:
    assert commit(ledger, store, batch(LOG)) == [Outcome(folded=len(LOG))]
    assert commit(ledger, store, batch(LOG)) == [Outcome(fenced=True)]
    assert commit(ledger, store, batch(LOG[3:9])) == [Outcome(fenced=True)]
    assert shown(ledger) == told(EVENTS)


def test_of_a_batch_that_overlaps_the_checkpoint_only_the_rest_is_folded(ledger: Ledger, store: Store) -> None:
    commit(ledger, store, batch(LOG[:25]))
    assert commit(ledger, store, batch(LOG[10:])) == [Outcome(folded=len(LOG) - 25)]
    assert shown(ledger) == told(EVENTS)
    assert set(verdicts(ledger).values()) == {"accepted"}
    assert checkpoints(ledger) == {len(LOG)}


def test_a_batch_beyond_the_checkpoint_is_a_gap_and_changes_nothing(ledger: Ledger, store: Store) -> None:
    commit(ledger, store, batch(LOG[:5]))
    with pytest.raises(Gap, match=r"the batch starts at 6, the checkpoint is at 5") as gap:
        commit(ledger, store, batch(LOG[6:]))
    assert gap.value.next_offset == 5
    assert shown(ledger) == told(EVENTS[:5])
    assert checkpoints(ledger) == {5}


def test_holes_in_the_log_are_no_gap(ledger: Ledger, store: Store) -> None:
    sparse = [replace(each, offset=10 + 3 * each.offset) for each in LOG]
    commit(ledger, store, batch(sparse[:20], start=0, end=75))
    commit(ledger, store, batch(sparse[20:], start=75, end=1000))
    assert shown(ledger) == told(EVENTS)
    assert checkpoints(ledger) == {1000}


def test_a_batch_without_records_moves_the_checkpoints(ledger: Ledger, store: Store) -> None:
    assert commit(ledger, store, batch([], start=0, end=7)) == [Outcome()]
    assert checkpoints(ledger) == {7}
    assert shown(ledger) == told([])
    log_times = ledger.execute("SELECT DISTINCT log_time FROM spanfold.checkpoints")
    assert log_times.fetchall() == [(None,)]


def test_the_checkpoint_says_the_log_time_of_the_last_record(ledger: Ledger, store: Store) -> None:
    later = [replace(each, log_time_ms=LOG_TIME_MS + each.offset) for each in LOG]
    commit(ledger, store, batch(later[:7]))
    commit(ledger, store, batch([], start=7, end=9))
    query = (
        "SELECT DISTINCT (extract(epoch FROM log_time) * 1000)::bigint FROM spanfold.checkpoints"
        " WHERE topic = 'spanfold.traces' AND partition = 0"
    )
    assert ledger.execute(query).fetchall() == [(LOG_TIME_MS + 6,)]


def test_partitions_stand_where_they_stand_for_themselves(ledger: Ledger, store: Store) -> None:
    commit(ledger, store, batch(LOG))
    others = ledger.execute("SELECT DISTINCT next_offset FROM spanfold.checkpoints WHERE partition <> 0")
    assert others.fetchall() == [(0,)]


def test_a_partition_without_a_checkpoint_says_what_to_do(ledger: Ledger, store: Store) -> None:
    ledger.execute("DELETE FROM spanfold_core.checkpoints WHERE partition = 0")
    with pytest.raises(Misconfigured, match="register its topic"):
        commit(ledger, store, batch(LOG))


# Whoever commits, however it ends


@pytest.mark.parametrize("step", ["before_merge", "before_commit"])
def test_a_commit_that_stops_halfway_leaves_nothing(ledger: Ledger, store: Store, step: str) -> None:
    commit(ledger, store, batch(LOG[:10]))
    bad = replace(LOG[10], value=b"?")
    rest = batch([bad, replace(LOG[0], offset=11), *LOG[12:]])

    def stop(reached: str) -> None:
        if reached == step:
            raise Stop

    store.reached = stop
    with pytest.raises(Stop):
        commit(ledger, store, rest)
    assert shown(ledger) == told(EVENTS[:10])
    assert len(verdicts(ledger)) == 10
    assert ledger.execute("SELECT count(*) FROM spanfold.parked_records").fetchone() == (0,)
    assert checkpoints(ledger) == {10}

    store.reached = lambda _: None
    assert commit(ledger, store, rest) == [Outcome(28, {"duplicate": 1}, {"unreadable": 1})]
    assert shown(ledger) == told(EVENTS[:10] + EVENTS[12:])


@pytest.mark.parametrize("step", ["before_merge", "before_commit"])
def test_a_connection_that_breaks_halfway_leaves_nothing(
    ledger: Ledger, stack_settings: Settings, store: Store, step: str
) -> None:
    assert stack_settings.postgres_dsn
    with psycopg.connect(stack_settings.postgres_dsn, autocommit=True) as doomed:

        def cut_off(reached: str) -> None:
            if reached == step:
                ledger.execute("SELECT pg_terminate_backend(%s, 5000)", (doomed.info.backend_pid,))

        store.reached = cut_off
        with pytest.raises(psycopg.OperationalError):
            commit(doomed, store, batch(LOG))
    assert shown(ledger) == told([])
    assert checkpoints(ledger) == {0}
    store.reached = lambda _: None
    commit(ledger, store, batch(LOG))
    assert shown(ledger) == told(EVENTS)


def test_of_two_that_commit_the_same_batch_at_once_one_is_fenced(ledger: Ledger, stack_settings: Settings) -> None:
    both_are_here = threading.Barrier(2)

    def one(parts: Sequence[Batch]) -> list[Outcome]:
        assert stack_settings.postgres_dsn
        own = Store(installed())
        with psycopg.connect(stack_settings.postgres_dsn, autocommit=True) as connection:
            both_are_here.wait(10)
            return [outcome for part in parts for outcome in commit(connection, own, part)]

    with ThreadPoolExecutor(2) as pool:
        parts = [batch(LOG[at : at + 4]) for at in range(0, len(LOG), 4)]
        first, second = pool.map(one, [parts, parts])
    for outcomes in zip(first, second, strict=True):
        assert sorted(each.fenced for each in outcomes) == [False, True]
    assert shown(ledger) == told(EVENTS)


# What Postgres refuses


def test_bisecting_parks_exactly_the_records_that_postgres_refuses(ledger: Ledger, store: Store) -> None:
    # stands for whatever a later Postgres, or a table's owner, does not let pass
    ledger.execute("ALTER TABLE traces_g1.spans ADD CHECK (operation_name <> 'refuse me')")
    refused = {5, 6, 17, 38}
    log = list(LOG)
    for offset in refused:
        event = EVENTS[1]
        assert isinstance(event, SpanRecorded)
        log[offset] = record(replace(event, operation_name="refuse me", span_id=f"{offset}", event_id=b""), offset)
    log[20] = replace(log[20], value=b"?")
    log[21] = replace(log[3], offset=21)
    outcomes = commit(ledger, store, batch(log, start=0, end=50))
    parked = dict(ledger.execute("SELECT kafka_offset, reason FROM spanfold.parked_records").fetchall())
    assert parked == {20: "unreadable"} | dict.fromkeys(refused, "refused")
    detail = ledger.execute("SELECT detail FROM spanfold.parked_records WHERE kafka_offset = 5").fetchone()
    assert detail
    assert "check constraint" in detail[0]
    kept = [event for offset, event in enumerate(EVENTS) if offset not in refused | {20, 21}]
    assert shown(ledger) == told(kept)
    assert checkpoints(ledger) == {50}
    assert sum(each.folded for each in outcomes) == len(kept)
    assert commit(ledger, store, batch(log, start=0, end=50)) == [Outcome(fenced=True)]


def test_what_was_refused_once_is_not_folded_by_the_next_generation(
    ledger: Ledger, store: Store, stack_settings: Settings
) -> None:
    ledger.execute("ALTER TABLE traces_g1.spans ADD CHECK (span_id <> '2')")
    commit(ledger, store, batch(LOG))
    both = with_second(stack_settings)
    commit(ledger, Store(both), batch(LOG))
    assert ledger.execute("SELECT count(*) FROM second_g1.spans").fetchone() == (10,)
    assert rows_of(ledger, "second_g1") == rows_of(ledger, "traces_g1")


def test_an_error_of_the_database_itself_parks_nothing(ledger: Ledger, store: Store) -> None:
    ledger.execute("DROP TABLE traces_g1.spans CASCADE")
    (outcome,) = commit(ledger, store, batch(LOG))
    assert 'relation "traces_g1.spans" does not exist' in outcome.suspended["traces"]
    assert set(verdicts(ledger).values()) == {"accepted"}
    assert ledger.execute("SELECT count(*) FROM spanfold.parked_records").fetchone() == (0,)


# A generation whose checkpoint lies behind the journal's


def troubled() -> list[Record]:
    """A log with a rejected, a parked and a doubled record in it."""
    log = list(LOG)
    log[4] = replace(log[4], headers=[])
    log[9] = replace(log[9], value=b"?")
    log[14] = replace(log[1], offset=14)
    log[29] = replace(log[2], offset=29)
    return log


@pytest.mark.parametrize("size", [1, 7, 100])
def test_a_generation_behind_the_journal_catches_up_with_the_verdicts_that_were_given(
    ledger: Ledger, store: Store, stack_settings: Settings, size: int
) -> None:
    log = troubled()
    commit(ledger, store, batch(log[:25]))
    both = Store(with_second(stack_settings))
    assert checkpoints(ledger) == {0, 25}
    before = shown(ledger), verdicts(ledger)
    for low in range(0, 25, size):
        high = min(low + size, 25)
        commit(ledger, both, batch(log[low:high]))
    assert (shown(ledger), verdicts(ledger)) == before
    assert checkpoints(ledger) == {25}
    commit(ledger, both, batch(log[25:]))
    assert rows_of(ledger, "second_g1") == rows_of(ledger, "traces_g1")
    assert shown(ledger) == told(event for offset, event in enumerate(EVENTS) if offset not in {4, 9, 14, 29})


def test_a_batch_across_the_journals_checkpoint_is_looked_up_below_and_judged_above(
    ledger: Ledger, store: Store, stack_settings: Settings
) -> None:
    log = troubled()
    commit(ledger, store, batch(log[:25]))
    both = Store(with_second(stack_settings))
    (outcome,) = commit(ledger, both, batch(log))
    assert outcome == Outcome(folded=14, rejected={"duplicate": 1})
    assert rows_of(ledger, "second_g1") == rows_of(ledger, "traces_g1")
    assert checkpoints(ledger) == {len(log)}


def test_while_one_generation_is_behind_a_batch_beyond_it_is_a_gap(
    ledger: Ledger, store: Store, stack_settings: Settings
) -> None:
    commit(ledger, store, batch(LOG[:25]))
    both = Store(with_second(stack_settings))
    with pytest.raises(Gap) as gap:
        commit(ledger, both, batch(LOG[25:]))
    assert gap.value.next_offset == 0


def test_a_version_that_cannot_read_what_was_folded_before_refuses_to_catch_up(
    ledger: Ledger, store: Store, stack_settings: Settings
) -> None:
    commit(ledger, store, batch(LOG))
    older = Store(with_second(stack_settings), Codec(Forgetful()))
    with pytest.raises(Misconfigured, match=r"spanfold.traces/0@1 has been folded before.*upgrade, then retry"):
        commit(ledger, older, batch(LOG))
    assert rows_of(ledger, "second_g1") == [[], []]


def test_a_generation_of_another_fold_version_is_left_alone(ledger: Ledger, store: Store) -> None:
    ledger.execute("UPDATE spanfold_core.generations SET fold_version = fold_version + 1")
    commit(ledger, store, batch(LOG))
    assert shown(ledger) == told([])
    assert checkpoints(ledger) == {0, len(LOG)}


# Law 1: the log decides


def test_another_database_gets_the_same_rows_from_the_same_log(
    ledger: Ledger, store: Store, second_ledger: Ledger
) -> None:
    log = troubled()
    commit(ledger, store, batch(log))
    for at in range(0, len(log), 3):
        commit(second_ledger, Store(installed()), batch(log[at : at + 3]))
    assert everything(second_ledger) == everything(ledger)


def everything(ledger: Ledger) -> tuple[Rows, list[Any], list[Any]]:
    every = "SELECT v::text FROM spanfold.{} v ORDER BY 1"
    return (
        shown(ledger),
        ledger.execute(every.format("verdicts").encode()).fetchall(),
        ledger.execute(every.format("journal").encode()).fetchall(),
    )


# The journal's days


def test_the_log_may_be_idle_for_any_time_in_any_partition(ledger: Ledger, store: Store) -> None:
    """One store reads a partition that was idle for 80 days, and then one that was not."""
    keys = {int(partitions_of([key.encode()], 2)[0]): key for key in "abcd"}
    for partition, days in ((0, (0, 80)), (1, (0, 40, 80))):
        for offset, day in enumerate(days):
            at = NOW + day * DAY
            event = TraceCompleted(aggregate_id=keys[partition], occurred_at=at, source="test", end_time=at)
            one = record(event, offset, log_time_ms=at // 1000)
            commit(ledger, store, batch([one], partition=partition, partitions=2))
    assert ledger.execute("SELECT verdict, count(*) FROM spanfold.verdicts GROUP BY 1").fetchall() == [("accepted", 5)]
