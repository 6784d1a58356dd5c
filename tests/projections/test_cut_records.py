"""Records with more bytes than are kept: limits on headers are a verdict, a value's size is none, and what is stored is small."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from spanfold.language.errors import InvalidInput
from spanfold.language.events import RecordDiscarded, RecordRetried
from spanfold.language.records import MAX_HEADERS, MAX_HEADERS_BYTES, headers_of
from spanfold.language.topics import TRACES
from spanfold.projections.commit.cut import CutHeaders, CutKey, CutValue, headers_size, within_limits
from spanfold.projections.commit.parked_bytes import first_in_log, store_value
from spanfold.projections.commit.store import Store
from spanfold.projections.commit.verdicts import Verdict, _read_all, judge
from spanfold.projections.projection import installed
from tests.support.databases import Ledger
from tests.support.stores import commit_records, fact, states_with
from tests.support.strategies import Record, batch, record
from tests.support.ten_traces import EVENTS, LOG
from tests.support.trace_rows import shown, told

LARGE = next(offset for offset, event in enumerate(EVENTS) if event.event_type == "SpanRecorded")
"""Offset of the span whose value counts as too large here."""

Headers = list[tuple[str, bytes | None]]


def padded(number: int, size: int) -> Headers:
    """The headers of the first event, and others: so many in all, of so many bytes."""
    headers: Headers = [*headers_of(EVENTS[0])]
    headers += [(f"{at}", b"") for at in range(number - len(headers) - 1)]
    return [*headers, ("x", b"v" * (size - headers_size(headers) - 1))]


def rejection_of(one: Record) -> str | None:
    """Why the record is rejected as malformed, if it is."""
    rejection = judge(batch([one])).rejections.get(0)
    assert rejection is None or rejection.verdict == Verdict.MALFORMED
    return None if rejection is None else rejection.detail


@pytest.mark.parametrize(
    ("number", "size", "accepted"),
    [
        (MAX_HEADERS, 4_000, True),
        (MAX_HEADERS + 1, 4_000, False),
        (4, MAX_HEADERS_BYTES, True),
        (4, MAX_HEADERS_BYTES + 1, False),
        (MAX_HEADERS, MAX_HEADERS_BYTES, True),
    ],
)
def test_a_record_has_at_most_256_headers_of_64_kib(number: int, size: int, accepted: bool) -> None:
    one = record(EVENTS[0], headers=padded(number, size))
    assert (len(one.headers), headers_size(one.headers)) == (number, size)
    assert (rejection_of(one) is None) is accepted
    # a batch that is judged at once says the same
    both = judge(batch([one, replace(one, offset=1)]))
    assert (both.rejections == {}) is accepted
    if not accepted:
        assert _read_all(batch([one, replace(one, offset=1)])) is None


def test_these_limits_never_change() -> None:
    assert (MAX_HEADERS, MAX_HEADERS_BYTES) == (256, 65_536)


def test_what_a_reader_has_cut_is_judged_and_kept_like_what_it_has_not(ledger: Ledger) -> None:
    """Whether a batch was read as a stream depends on its size, and must make no difference."""
    headers = padded(300, 100_000)
    whole = record(EVENTS[0], 0, headers=headers)
    cut = within_limits(headers)
    assert isinstance(cut, CutHeaders)
    key = b"k" * 5_000
    long_key = record(EVENTS[0], 2, key=key)
    commit_records(
        ledger,
        Store(installed()),
        [
            whole,
            replace(whole, offset=1, headers=cut),
            long_key,
            replace(long_key, offset=3, key=CutKey.of(CutValue.of(key))),
        ],
    )
    columns = "verdict, detail, key, headers, payload"
    rows = ledger.execute(f"SELECT {columns} FROM spanfold_core.rejected ORDER BY kafka_offset".encode()).fetchall()
    assert rows[0] == rows[1]
    assert rows[2] == rows[3]
    assert {row[0] for row in rows} == {"malformed"}
    assert rows[0][1].startswith("300 headers of 100,602 bytes on the wire, SHA-256 ")
    assert rows[0][3] is None
    assert rows[2][1].endswith(f"; it has 5,000, SHA-256 {hashlib.sha256(key).hexdigest()}")
    assert rows[2][2] == key[:1024]


def test_a_rejected_record_keeps_size_hash_and_beginning_of_a_value_that_is_too_large(ledger: Ledger) -> None:
    value = bytes(range(256)) * 100
    commit_records(ledger, Store(installed()), [record(EVENTS[0], 0, headers=[], value=CutValue.of(value))])
    row = ledger.execute("SELECT verdict, payload, value_bytes, value_sha256 FROM spanfold_core.rejected").fetchone()
    assert row == ("malformed", value[:1024], 25_600, hashlib.sha256(value).digest())


def test_an_event_whose_headers_would_be_malformed_is_not_published() -> None:
    assert len(headers_of(EVENTS[0], "t" * 65_000)) == 4
    with pytest.raises(InvalidInput, match="headers take"):
        headers_of(EVENTS[0], "t" * 65_536)


def with_large(records: Sequence[Record]) -> list[Record]:
    return [replace(each, value=CutValue.of(each.value)) if each.offset == LARGE else each for each in records]  # type: ignore[arg-type]


def row_of(ledger: Ledger) -> Any:
    columns = "reason, state, payload, value_bytes, last_tried_offset"
    return ledger.execute(f"SELECT {columns} FROM spanfold.parked_records".encode()).fetchone()


def test_a_value_that_is_too_large_is_accepted_and_parked_and_its_neighbours_are_folded(ledger: Ledger) -> None:
    commit_records(ledger, Store(installed()), with_large(LOG))
    value = LOG[LARGE].value
    assert isinstance(value, bytes)
    assert row_of(ledger) == ("too_large", "parked", value[:1024], len(value), None)
    verdicts = ledger.execute("SELECT verdict, count(*) FROM spanfold.verdicts GROUP BY 1").fetchall()
    assert verdicts == [("accepted", len(LOG))]
    assert shown(ledger) == told([event for offset, event in enumerate(EVENTS) if offset != LARGE])
    assert first_in_log(ledger) == {(TRACES.name, 0): LARGE}


def test_without_its_bytes_a_retry_leaves_it_parked_and_with_them_it_is_folded(ledger: Ledger) -> None:
    store, value = Store(installed()), LOG[LARGE].value
    assert isinstance(value, bytes)
    commit_records(ledger, store, with_large(LOG))
    commit_records(ledger, store, [fact(RecordRetried, LARGE, 40)])
    assert row_of(ledger) == ("too_large", "parked", value[:1024], len(value), 40)

    assert not store_value(ledger, TRACES, 0, LARGE, value + b"!")
    assert not store_value(ledger, TRACES, 0, LARGE + 1, value)
    assert store_value(ledger, TRACES, 0, LARGE, value)
    assert first_in_log(ledger) == {}
    assert row_of(ledger) == ("too_large", "parked", value, None, 40)
    assert not store_value(ledger, TRACES, 0, LARGE, value)

    commit_records(ledger, store, [fact(RecordRetried, LARGE, 41, again=1)])
    assert row_of(ledger)[1] == "retried"
    assert shown(ledger) == told(EVENTS)
    journal = ledger.execute("SELECT payload FROM spanfold_core.journal_traces WHERE kafka_offset = %s", (LARGE,))
    assert journal.fetchall() == [(value,)]


def test_a_discarded_one_needs_no_log_any_more(ledger: Ledger) -> None:
    commit_records(ledger, Store(installed()), with_large(LOG))
    commit_records(ledger, Store(installed()), [fact(RecordDiscarded, LARGE, 40)])
    assert first_in_log(ledger) == {}
    value = LOG[LARGE].value
    assert isinstance(value, bytes)
    assert not store_value(ledger, TRACES, 0, LARGE, value)


def test_states_have_it_where_it_was_retried(ledger: Ledger) -> None:
    states, store = states_with(ledger), Store(installed())
    value = LOG[LARGE].value
    assert isinstance(value, bytes)
    trace = EVENTS[LARGE].aggregate_id

    def fold(records: list[Record]) -> None:
        commit_records(ledger, store, records)
        states.commit(ledger, states.prepare(batch(records)))

    def records_folded() -> int:
        query = "SELECT records FROM spanfold_core.states WHERE aggregate_id = %s"
        ((count,),) = ledger.execute(query, (trace,)).fetchall()
        return int(count)

    fold(with_large(LOG))
    before = records_folded()
    store_value(ledger, TRACES, 0, LARGE, value)
    fold([fact(RecordRetried, LARGE, len(LOG))])
    assert records_folded() == before + 1
