"""A parked record is retried or given up by a fact in the log: there its bytes are folded, once, by every replay."""

from dataclasses import replace

import pytest

from spanfold.language.events import RecordDiscarded, RecordRetried
from spanfold.language.settings import Settings
from spanfold.language.topics import TRACES
from spanfold.projections.commit.store import Store
from spanfold.projections.projection import installed
from spanfold.schemas.codec import Codec
from tests.support.databases import Ledger
from tests.support.stores import Forgetful, fact, older, rows_of, with_second
from tests.support.stores import commit_records as commit
from tests.support.strategies import NOW, cut, record
from tests.support.ten_traces import EVENTS, LOG
from tests.support.trace_rows import shown, told

SPANS = [offset for offset, event in enumerate(EVENTS) if event.event_type == "SpanRecorded"]


def states(ledger: Ledger) -> dict[int, str]:
    return dict(ledger.execute("SELECT kafka_offset, state FROM spanfold.parked_records").fetchall())


def test_a_record_that_can_be_read_now_is_folded_where_it_is_retried(ledger: Ledger) -> None:
    commit(ledger, older(), LOG)
    assert states(ledger) == dict.fromkeys(SPANS, "parked")
    commit(ledger, Store(installed()), [fact(RecordRetried, offset, 40 + n) for n, offset in enumerate(SPANS)])
    assert states(ledger) == dict.fromkeys(SPANS, "retried")
    assert shown(ledger) == told(EVENTS)


def test_retried_twice_it_is_folded_once(ledger: Ledger) -> None:
    commit(ledger, older(), LOG)
    retries = [fact(RecordRetried, offset, 40 + n) for n, offset in enumerate(SPANS)]
    again = [fact(RecordRetried, offset, 60 + n, again=1) for n, offset in enumerate(SPANS)]
    commit(ledger, Store(installed()), retries)
    commit(ledger, Store(installed()), again)
    assert shown(ledger) == told(EVENTS)


def test_what_still_cannot_be_read_stays_parked_and_says_when_it_was_tried(ledger: Ledger) -> None:
    commit(ledger, older(), LOG)
    commit(ledger, older(), [fact(RecordRetried, SPANS[0], 40)])
    assert states(ledger)[SPANS[0]] == "parked"
    row = ledger.execute(
        "SELECT last_tried_offset, reason FROM spanfold.parked_records WHERE kafka_offset = %s", (SPANS[0],)
    ).fetchone()
    assert row == (40, "unknown_schema")
    commit(ledger, Store(installed()), [fact(RecordRetried, SPANS[0], 41, again=1)])
    assert states(ledger)[SPANS[0]] == "retried"


def test_a_discarded_record_is_never_folded(ledger: Ledger) -> None:
    commit(ledger, older(), LOG)
    commit(ledger, Store(installed()), [fact(RecordDiscarded, SPANS[0], 40), fact(RecordRetried, SPANS[0], 41)])
    assert states(ledger)[SPANS[0]] == "discarded"
    without_spans = [event for event in EVENTS if event.event_type != "SpanRecorded"]
    assert shown(ledger) == told(without_spans)


@pytest.mark.parametrize("offset", [0, 12345])
def test_a_fact_about_a_record_that_is_not_parked_changes_nothing(ledger: Ledger, offset: int) -> None:
    commit(ledger, Store(installed()), LOG)
    event = RecordRetried(
        aggregate_id=EVENTS[0].aggregate_id,
        occurred_at=NOW,
        source="test",
        record_topic=TRACES.name,
        record_offset=offset,
    )
    commit(ledger, Store(installed()), [record(event, len(LOG))])
    assert shown(ledger) == told(EVENTS)


def test_a_record_parked_and_retried_in_one_batch_is_folded_once_readable(ledger: Ledger) -> None:
    retries = [fact(RecordRetried, offset, 40 + n) for n, offset in enumerate(SPANS)]
    commit(ledger, older(), [*LOG, *retries])
    assert states(ledger) == dict.fromkeys(SPANS, "parked")
    commit(ledger, Store(installed()), [fact(RecordRetried, offset, 60 + n, again=1) for n, offset in enumerate(SPANS)])
    assert shown(ledger) == told(EVENTS)


@pytest.mark.parametrize("cls", [RecordDiscarded, RecordRetried])
@pytest.mark.parametrize("cuts", [[], [1]])
def test_a_fact_about_a_record_that_has_not_come_yet_settles_nothing_wherever_the_batch_is_cut(
    ledger: Ledger, cls: type[RecordRetried] | type[RecordDiscarded], cuts: list[int]
) -> None:
    later = replace(LOG[SPANS[0]], offset=1)
    early = cls(
        aggregate_id=EVENTS[SPANS[0]].aggregate_id, occurred_at=NOW, source="test",
        record_topic=TRACES.name, record_offset=1,
    )  # fmt: skip
    for part in cut([record(early, 0), later], cuts):
        older().commit(ledger, older().prepare(part))
    rows = ledger.execute("SELECT kafka_offset, state, last_tried_offset FROM spanfold.parked_records").fetchall()
    assert rows == [(1, "parked", None)]


def test_a_generation_that_follows_folds_at_the_same_places(ledger: Ledger, stack_settings: Settings) -> None:
    retries = [fact(RecordRetried, offset, 40 + n) for n, offset in enumerate(SPANS[:5])]
    discards = [fact(RecordDiscarded, offset, 45 + n) for n, offset in enumerate(SPANS[5:8])]
    commit(ledger, older(), LOG)
    commit(ledger, Store(installed()), [*retries, *discards])
    both = Store(with_second(stack_settings))
    for at in range(0, 48, 7):
        commit(ledger, both, [*LOG, *retries, *discards][at : at + 7])
    assert rows_of(ledger, "second_g1") == rows_of(ledger, "traces_g1")


def test_a_record_that_was_retried_and_folded_must_stay_readable(ledger: Ledger, stack_settings: Settings) -> None:
    commit(ledger, older(), LOG)
    retried = fact(RecordRetried, SPANS[0], 40)
    commit(ledger, Store(installed()), [retried])
    both = Store(with_second(stack_settings), Codec(Forgetful()))
    commit(ledger, both, LOG)
    with pytest.raises(Exception, match="was retried and folded at 40, but this version cannot read it"):
        commit(ledger, both, [retried])


def test_a_record_that_postgres_refuses_again_stays_parked_and_the_fact_counts(ledger: Ledger) -> None:
    commit(ledger, older(), LOG)
    ledger.execute("ALTER TABLE traces_g1.spans ADD CONSTRAINT no CHECK (span_id <> '1')")
    store = Store(installed())
    commit(ledger, store, [fact(RecordRetried, offset, 40 + n) for n, offset in enumerate(SPANS)])
    left = {offset for offset, state in states(ledger).items() if state == "parked"}
    assert left == {offset for offset in SPANS if getattr(EVENTS[offset], "span_id", "") == "1"}
    rows = ledger.execute("SELECT DISTINCT reason FROM spanfold.parked_records WHERE state = 'parked'").fetchall()
    assert rows == [("refused",)]
    ledger.execute("ALTER TABLE traces_g1.spans DROP CONSTRAINT no")
    commit(ledger, store, [fact(RecordRetried, offset, 60 + n, again=1) for n, offset in enumerate(sorted(left))])
    assert shown(ledger) == told(EVENTS)


def test_a_parked_fact_that_is_retried_is_not_for_projections(ledger: Ledger) -> None:
    commit(ledger, older(), LOG)
    unreadable = fact(RecordRetried, SPANS[0], 40)
    broken = replace(unreadable, value=b"\0")
    commit(ledger, Store(installed()), [broken])
    ledger.execute("UPDATE spanfold_core.parked SET payload = %s WHERE kafka_offset = 40", (unreadable.value,))
    again = RecordRetried(
        aggregate_id=EVENTS[SPANS[0]].aggregate_id,
        occurred_at=NOW,
        source="test",
        record_topic=TRACES.name,
        record_offset=40,
    )
    commit(ledger, Store(installed()), [record(again, 41)])
    assert states(ledger)[40] == "retried"
    assert states(ledger)[SPANS[0]] == "parked"
