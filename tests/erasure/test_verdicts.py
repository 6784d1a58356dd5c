"""What the log says of an erased trace: who is rejected, that no row names it any more, and that cuts change nothing."""

from dataclasses import replace
from typing import Any

import pytest

from spanfold.language.events import RecordRetried, TraceCompleted
from spanfold.language.partitioning import partitions_of
from spanfold.language.topics import SERVICES, TRACES
from spanfold.projections.commit.erasure import FEW
from spanfold.projections.commit.store import Store
from spanfold.projections.projection import installed
from tests.erasure.log_with_erasure import LATE, LOG, OTHERS, TRACE, commit
from tests.support.databases import Ledger
from tests.support.erasure import erased, tables_with
from tests.support.stores import Second, fact, older, rows_of, with_second
from tests.support.strategies import DAY, NOW, Record, batch, cut, record, records_of
from tests.support.ten_traces import EVENTS
from tests.support.trace_rows import shown, told, verdicts

LATE_ONES = range(41, 47)


@pytest.mark.parametrize("size", [1, 5, 100])
def test_a_trace_that_was_erased_is_nowhere_and_the_others_are_as_if_it_had_never_been(
    ledger: Ledger, size: int
) -> None:
    commit(ledger, Store(installed()), cut(LOG, range(0, len(LOG), size)))
    assert shown(ledger) == told(OTHERS)
    said = verdicts(ledger)
    assert {offset for offset, verdict in said.items() if verdict == "erased"} == set(LATE_ONES)
    assert set(said) == set(range(47)) - {12, 13, 14, 15, 22}, "only the rows of its accepted records are gone"
    assert tables_with(ledger, TRACE) == []
    rows = ledger.execute("SELECT topic, partition, aggregate_id, kafka_offset FROM spanfold.erased").fetchall()
    assert rows == [("spanfold.traces", 0, TRACE, 22)]
    named = "event_id IS NOT NULL OR aggregate_id IS NOT NULL OR key IS NOT NULL OR headers IS NOT NULL OR payload IS NOT NULL"
    query = f"SELECT count(*) FROM spanfold_core.rejected WHERE verdict = 'erased' AND ({named})"
    assert ledger.execute(query.encode()).fetchone() == (0,)


def test_redelivered_batches_change_nothing(ledger: Ledger) -> None:
    store = Store(installed())
    for at in range(0, len(LOG), 4):
        commit(ledger, store, [batch(LOG[at : at + 4]), batch(LOG[max(0, at - 7) : at + 4])])
    assert shown(ledger) == told(OTHERS)
    assert tables_with(ledger, TRACE) == []


@pytest.mark.parametrize("size", [1, 9, 100])
def test_another_database_gets_the_same_rows_and_verdicts_from_the_same_log(
    ledger: Ledger, second_ledger: Ledger, size: int
) -> None:
    commit(ledger, Store(installed()), cut(LOG, range(0, len(LOG), 4)))
    commit(second_ledger, Store(installed()), cut(LOG, range(0, len(LOG), size)))
    assert rows_of(second_ledger, "traces_g1") == rows_of(ledger, "traces_g1")
    every = "SELECT v::text FROM spanfold.{} v ORDER BY 1"
    for view in ("verdicts", "journal", "parked_records", "erased"):
        query = every.format(view).encode()
        assert second_ledger.execute(query).fetchall() == ledger.execute(query).fetchall(), view


def test_many_erasures_in_one_batch(ledger: Ledger) -> None:
    erasures = [erased(f"trace {number}", 40 + number) for number in range(10) if number != 4]
    commit(ledger, Store(installed()), [batch([*records_of(EVENTS), *erasures])])
    assert shown(ledger) == told(event for event in EVENTS if event.aggregate_id == "trace 4")


def test_however_many_traces_were_erased_before(ledger: Ledger) -> None:
    for number in range(FEW + 5):
        ledger.execute(
            "INSERT INTO spanfold_core.erased VALUES ('spanfold.traces', 1, %s, 1, now(), %s)", (f"id {number}", number)
        )
    commit(ledger, Store(installed()), cut(LOG, range(0, len(LOG), 9)))
    assert shown(ledger) == told(OTHERS)
    assert tables_with(ledger, TRACE) == []


def test_what_is_misrouted_or_malformed_or_too_old_names_nobody_either(ledger: Ledger) -> None:
    strays = [
        record(LATE, 30, headers=[("event_id", TRACE.encode())]),
        record(replace(LATE, occurred_at=NOW - 60 * DAY, event_id=b""), 31),
        record(replace(LATE, occurred_at=NOW + 9 * DAY, event_id=b""), 32),
        record(LATE, 33),
    ]
    before = [replace(each, offset=each.offset - 10) for each in strays]
    commit(ledger, Store(installed()), [batch([*before, erased(TRACE, 29), *strays], start=0)])
    said = verdicts(ledger)
    assert [said.get(offset) for offset in range(20, 24)] == ["malformed", "expired", "future", None]
    assert [said[offset] for offset in range(30, 34)] == ["malformed", "erased", "erased", "erased"]
    assert tables_with(ledger, TRACE) == []


@pytest.mark.parametrize("erasure_first", [True, False])
def test_a_record_in_a_partition_of_others_names_nobody_either(ledger: Ledger, erasure_first: bool) -> None:
    home = int(partitions_of([TRACE.encode()], 2)[0])
    parts = [batch([erased(TRACE, 0)], partition=home, partitions=2)]
    parts.insert(erasure_first, batch([record(LATE, 0)], partition=1 - home, partitions=2))
    commit(ledger, Store(installed()), parts)
    rows = ledger.execute("SELECT verdict, aggregate_id FROM spanfold_core.rejected").fetchall()
    assert rows == [("misrouted", None)]
    assert tables_with(ledger, TRACE) == []


@pytest.mark.parametrize("cuts", [[], [1], [2], [1, 2]])
def test_an_event_id_that_an_erased_trace_had_is_free_wherever_the_batch_is_cut(
    ledger: Ledger, cuts: list[int]
) -> None:
    at = NOW + 2
    first = TraceCompleted(aggregate_id=TRACE, occurred_at=at, source="test", end_time=at)
    same_id = replace(first, aggregate_id="another", event_id=first.event_id)
    commit(ledger, Store(installed()), cut([record(first, 0), erased(TRACE, 1), record(same_id, 2)], cuts))
    assert verdicts(ledger) == {2: "accepted"}
    assert shown(ledger) == told([same_id])


def test_what_the_headers_say_erases_whatever_the_payload_is(ledger: Ledger) -> None:
    commit(ledger, Store(installed()), [batch([*records_of(EVENTS), erased(TRACE, 40, value=b"?"), record(LATE, 41)])])
    assert shown(ledger) == told(OTHERS)
    assert verdicts(ledger)[41] == "erased"
    assert ledger.execute("SELECT count(*) FROM spanfold.parked_records").fetchone() == (0,)


def test_on_a_topic_of_others_nothing_is_erased(ledger: Ledger) -> None:
    one = replace(batch([erased(TRACE, 0)]), topic=SERVICES)
    commit(ledger, Store(installed()), [one])
    rows = ledger.execute("SELECT reason, detail FROM spanfold.parked_records").fetchall()
    assert rows == [("invalid", "TraceErased does not belong to spanfold.services")]
    assert ledger.execute("SELECT count(*) FROM spanfold.erased").fetchone() == (0,)


# Parked records


def test_a_parked_record_of_the_trace_can_never_be_folded(ledger: Ledger) -> None:
    commit(ledger, older(), [batch([*records_of(EVENTS), erased(TRACE, 40)])])
    assert [row for row in parked(ledger) if row[1] == "erased"] == [(13, "erased", 40, None), (15, "erased", 40, None)]
    assert tables_with(ledger, TRACE) == []
    # a fact of another key that names it finds nothing to fold
    foreign = fact_of_another_key(13, 41)
    commit(ledger, Store(installed()), [batch([foreign, fact_of(13, 42)])])
    assert verdicts(ledger)[42] == "erased"
    assert not any(key[0] == TRACE for key in shown(ledger).spans)
    assert tables_with(ledger, TRACE) == []


def test_a_record_that_was_retried_before_goes_with_its_trace_in_every_database(
    ledger: Ledger, second_ledger: Ledger
) -> None:
    retried = [*records_of(EVENTS), fact_of(13, 40)]
    commit(ledger, older(), [batch(retried[:40])])
    commit(ledger, Store(installed()), [batch(retried[40:])])
    assert sum(span[0] == TRACE for span in shown(ledger).spans) == 1
    commit(ledger, Store(installed()), [batch([erased(TRACE, 41)])])
    assert tables_with(ledger, TRACE) == []
    assert [row for row in parked(ledger) if row[0] in (13, 15)] == [(13, "erased", 41, None), (15, "erased", 41, None)]


def parked(ledger: Ledger) -> list[Any]:
    query = "SELECT kafka_offset, state, settled_offset, payload FROM spanfold.parked_records ORDER BY 1"
    return ledger.execute(query).fetchall()


def fact_of(offset: int, at: int) -> Record:
    return fact(RecordRetried, offset, at)


def fact_of_another_key(offset: int, at: int) -> Record:
    event = RecordRetried(
        aggregate_id="trace 4", occurred_at=NOW, source="test", record_topic=TRACES.name, record_offset=offset
    )
    return record(event, at)


# Generations that lag


@pytest.mark.parametrize("folded_before", [0, 14, 22, 23, 30])
@pytest.mark.parametrize("size", [1, 6, 100])
def test_a_generation_that_lags_erases_where_it_passes_the_fact(
    ledger: Ledger, stack_settings: Any, folded_before: int, size: int
) -> None:
    both = Store(with_second(stack_settings))
    commit(ledger, both, [batch(LOG[:folded_before])] if folded_before else [])
    commit(ledger, Store(installed()), [batch(LOG[folded_before:])])
    rest = LOG[folded_before:]
    commit(ledger, both, cut(rest, range(0, len(rest), size)))
    assert rows_of(ledger, "second_g1") == rows_of(ledger, "traces_g1")
    assert tables_with(ledger, TRACE) == []


class Silent(Second):
    """A projection that says nothing of erasure."""

    erase = None  # type: ignore[assignment]


def test_a_projection_that_does_not_say_how_keeps_its_rows_until_it_is_folded_anew(
    ledger: Ledger, stack_settings: Any
) -> None:
    projections: dict[str, Any] = {**with_second(stack_settings), "second": Silent()}
    commit(ledger, Store(projections), [batch(LOG[:41])])
    assert shown(ledger) == told(OTHERS)
    assert tables_with(ledger, TRACE) == ["second_g1.spans", "second_g1.traces"]


@pytest.mark.parametrize("state", ["previous", "as_of"])
def test_generations_that_nobody_folds_now_lose_the_trace_too(ledger: Ledger, stack_settings: Any, state: str) -> None:
    both = Store(with_second(stack_settings))
    commit(ledger, both, [batch(LOG[:20])])
    ledger.execute("UPDATE spanfold_core.generations SET state = %s WHERE projection = 'second'", (state,))
    commit(ledger, both, [batch(LOG[20:41])])
    assert tables_with(ledger, TRACE) == []
    assert [len(rows) for rows in rows_of(ledger, "second_g1")] == [4, 8]


# What else is kept of an aggregate


def test_states_and_snapshots_of_the_trace_go_and_the_feed_hears_of_it(ledger: Ledger) -> None:
    common = "topic, aggregate_id, fold_version, version, state"
    for trace_id in (TRACE, "trace 4"):
        ledger.execute(
            f"INSERT INTO spanfold_core.saved_snapshots ({common}) VALUES ('spanfold.traces', %s, 1, 1, '{{}}')".encode(),
            (trace_id,),
        )
        ledger.execute(
            f"INSERT INTO spanfold_core.snapshots ({common}, partition, next_offset, sequence) "
            "VALUES ('spanfold.traces', %s, 1, 1, '', 0, 1, nextval('spanfold_core.snapshot_sequence'))".encode(),
            (trace_id,),
        )
        ledger.execute(
            f"INSERT INTO spanfold_core.states ({common}, partition, records, first_log_time, due_at) "
            "VALUES ('spanfold.traces', %s, 1, 1, '', 0, 1, now(), now())".encode(),
            (trace_id,),
        )
    commit(ledger, Store(installed()), [batch(LOG[:41])])
    for table in ("saved_snapshots", "snapshots", "states"):
        rows = ledger.execute(f"SELECT aggregate_id FROM spanfold_core.{table}".encode()).fetchall()
        assert rows == [("trace 4",)], table
    later = "SELECT (SELECT sequence FROM spanfold_core.erased) > (SELECT max(sequence) FROM spanfold_core.snapshots)"
    assert ledger.execute(later).fetchone() == (True,)
