"""Log records: one row each, whatever the order and the repetitions."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spanfold.language.events import LogRecorded, TraceCompleted
from spanfold.language.topics import LOGS
from spanfold.projections.commit.batch import Batch, Outcome
from spanfold.projections.commit.reading import read
from spanfold.projections.commit.store import Store
from spanfold.projections.commit.verdicts import judge
from spanfold.projections.logs import PROJECTION
from spanfold.projections.projection import installed
from tests.support.databases import Ledger
from tests.support.strategies import (
    CODEC,
    NOW,
    any_times,
    batch,
    cut,
    event_times,
    record,
    records_of,
    sources,
    tags,
    texts,
    values,
)
from tests.support.trace_rows import SOURCE, document, parsed, source_row, source_shown

QUERY = f"""
SELECT service_name, severity_number, severity_text, event_name, trace_id, span_id,
       (extract(epoch FROM occurred_at) * 1000000)::bigint, (extract(epoch FROM observed_time) * 1000000)::bigint,
       body::text, tags::text, {SOURCE}
  FROM spanfold.logs
"""

maybe = st.none() | texts
keys = st.sampled_from(["a", "4bf92f3577b34da6a3ce929d0e0e4736", "ü"])


@st.composite
def records(draw: st.DrawFn) -> LogRecorded:
    key, traced = draw(keys), draw(st.booleans())
    return LogRecorded(
        aggregate_id=key,
        occurred_at=draw(event_times),
        source=draw(texts),
        service_name=draw(texts) if traced else key,
        trace_id=key if traced else None,
        severity_number=draw(st.integers(0, 24)),
        severity_text=draw(st.just("ERROR") | texts),
        body=draw(values),
        event_name=draw(texts),
        observed_time=draw(st.none() | any_times),
        span_id=draw(maybe),
        tags=draw(tags),
        **draw(sources),
    )


def logged(**changes: Any) -> LogRecorded:
    fields: dict[str, Any] = {"service_name": "shop", "body": "no", "severity_number": 17} | changes
    return LogRecorded(aggregate_id=changes.get("trace_id", "shop"), occurred_at=NOW, source="test", **fields)


def row_of(event: LogRecorded) -> tuple[Any, ...]:
    return (
        event.service_name, event.severity_number, event.severity_text, event.event_name, event.trace_id, event.span_id,
        event.occurred_at, event.observed_time, document(event.body), document(event.tags), *source_row(event),
    )  # fmt: skip


def shown(ledger: Ledger) -> Counter[Any]:
    return Counter((*row[:8], *map(parsed, row[8:10]), *source_shown(row[10:])) for row in ledger.execute(QUERY))


def on_logs(one: Batch) -> Batch:
    return replace(one, topic=LOGS)


def fold(ledger: Ledger, batches: Iterable[Batch]) -> list[Outcome]:
    store = Store(installed())
    return [outcome for one in batches for outcome in store.commit(ledger, store.prepare(on_logs(one)))]


def empty(ledger: Ledger) -> None:
    with ledger.transaction():
        for table in ("logs_g1.logs", "logs_g1.resources", "spanfold_core.journal_logs", "spanfold_core.rejected"):
            ledger.execute(f"DELETE FROM {table}".encode())
        ledger.execute("UPDATE spanfold_core.checkpoints SET next_offset = 0")


distinct = st.lists(records(), max_size=8, unique_by=lambda event: (event.event_id, event.occurred_at))


@settings(max_examples=100, deadline=None)
@given(distinct, st.integers(0, 8))
def test_any_cut_folds_to_the_same_rows(events: Sequence[LogRecorded], at: int) -> None:
    facts = read(judge(on_logs(batch(records_of(events)))), CODEC, {})
    one, other = PROJECTION.fold(facts[:at]), PROJECTION.fold(facts[at:])
    whole = Counter(map(repr, PROJECTION.fold(facts)))
    assert Counter(map(repr, PROJECTION.combine(one, other))) == whole
    assert Counter(map(repr, PROJECTION.combine(other, one))) == whole


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(distinct, st.data())
def test_any_order_any_cut_and_any_doubling_give_the_same_rows(
    ledger: Ledger, events: list[LogRecorded], data: st.DataObject
) -> None:
    again = data.draw(st.lists(st.sampled_from(events), max_size=4)) if events else []
    log = records_of(data.draw(st.permutations([*events, *again])))
    batches = cut(log, data.draw(st.lists(st.integers(0, len(log)), max_size=4)))
    empty(ledger)
    fold(ledger, [*batches, *batches])
    assert shown(ledger) == Counter(map(row_of, events))


def test_records_that_are_published_three_times_over_are_there_once(ledger: Ledger) -> None:
    events = [
        logged(body=f"no {number}", tags={"exception.stacktrace": "at line 1\nat line 2"}) for number in range(20)
    ]
    log = records_of(events * 3)
    (outcome,) = fold(ledger, [batch(log)])
    assert (outcome.folded, outcome.rejected) == (20, {"duplicate": 40})
    assert shown(ledger) == Counter(map(row_of, events))


def test_the_version_of_a_record_is_its_position(ledger: Ledger) -> None:
    fold(ledger, [batch([record(logged(), 7)], start=0)])
    found = ledger.execute("SELECT version, event_id FROM spanfold.logs").fetchall()
    assert [(version, event_id.bytes) for version, event_id in found] == [(8, logged().event_id)]


@pytest.mark.parametrize("trace_id", ["t" * 500, "ü" * 100_000])
def test_ids_names_and_texts_of_any_length_are_rows(ledger: Ledger, trace_id: str) -> None:
    long = logged(
        trace_id=trace_id, service_name="\u20ac" * 170, body="m" * 1_000_000, tags={"exception.type": "e" * 9_000},
        scope_name="l" * 9_000, span_id="s" * 9_000,
    )  # fmt: skip
    keyed = replace(long, aggregate_id=trace_id[:250], event_id=b"")
    fold(ledger, [batch([record(keyed)])])
    assert shown(ledger) == Counter([row_of(keyed)])


def test_a_service_name_that_no_key_can_hold_is_parked_and_leaves_the_others_alone(ledger: Ledger) -> None:
    good, bad = logged(), logged(trace_id="a", service_name="\u20ac" * 171)
    (outcome,) = fold(ledger, [batch(records_of([good, bad]))])
    assert (outcome.folded, outcome.parked) == (1, {"invalid": 1})
    detail = ledger.execute("SELECT detail FROM spanfold.parked_records").fetchone()
    assert detail == ("service_name is 513 bytes long; at most 512 fit into a key",)
    assert shown(ledger) == Counter([row_of(good)])


def test_an_event_of_another_topic_is_parked(ledger: Ledger) -> None:
    stranger = TraceCompleted(aggregate_id="a", occurred_at=NOW, source="test", end_time=NOW)
    (outcome,) = fold(ledger, [batch(records_of([logged(), stranger]))])
    assert (outcome.folded, outcome.parked) == (1, {"invalid": 1})
    detail = ledger.execute("SELECT detail FROM spanfold.parked_records").fetchone()
    assert detail == ("TraceCompleted does not belong to spanfold.logs",)


def test_errors_are_the_records_of_severity_error_and_above(ledger: Ledger) -> None:
    exception = {"exception.type": "ValueError", "exception.message": "too old", "exception.stacktrace": "at line 1"}
    events = [
        logged(severity_number=16, body="warned"),
        logged(severity_number=17, body="no", scope_name="shop.pay"),
        logged(severity_number=21, body={"what": ["no"]}),
        logged(severity_number=18, severity_text="SEVERE", body=None, tags=exception),
    ]
    fold(ledger, [batch(records_of(events))])
    query = "SELECT severity, message, logger, exception_type, exception_message, stacktrace FROM spanfold.error_logs"
    assert sorted(ledger.execute(query).fetchall()) == [
        ("ERROR", "no", "shop.pay", None, None, None),
        ("FATAL", '{"what": ["no"]}', "", None, None, None),
        ("SEVERE", "too old", "", "ValueError", "too old", "at line 1"),
    ]


def test_a_severity_that_opentelemetry_does_not_know_is_parked(ledger: Ledger) -> None:
    (outcome,) = fold(ledger, [batch(records_of([logged(severity_number=25)]))])
    assert outcome.parked == {"invalid": 1}
    detail = ledger.execute("SELECT detail FROM spanfold.parked_records").fetchone()
    assert detail == ("severity_number is 25, not in 0 to 24",)


def test_every_column_says_what_it_means(ledger: Ledger) -> None:
    uncommented = ledger.execute(
        "SELECT attname FROM pg_attribute"
        " WHERE attrelid IN ('spanfold.logs'::regclass, 'spanfold.error_logs'::regclass)"
        " AND col_description(attrelid, attnum) IS NULL"
        " AND attnum > 0"
    )
    assert uncommented.fetchall() == []
