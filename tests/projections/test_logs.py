"""Errors that logs reported: one row each, whatever the order and the repetitions."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spanfold.language.events import ErrorLogged, TraceCompleted
from spanfold.language.topics import LOGS
from spanfold.projections.commit.batch import Batch, Outcome
from spanfold.projections.commit.reading import read
from spanfold.projections.commit.store import Store
from spanfold.projections.commit.verdicts import judge
from spanfold.projections.logs import PROJECTION
from spanfold.projections.projection import installed
from tests.support.databases import Ledger
from tests.support.strategies import CODEC, NOW, batch, cut, event_times, record, records_of, tags, texts
from tests.support.trace_rows import document

QUERY = """
SELECT service_name, severity, message, logger, exception_type, exception_message, stacktrace, trace_id, span_id,
       (extract(epoch FROM occurred_at) * 1000000)::bigint, tags::text
  FROM spanfold.error_logs
"""

maybe = st.none() | texts
keys = st.sampled_from(["a", "4bf92f3577b34da6a3ce929d0e0e4736", "ü"])


@st.composite
def errors(draw: st.DrawFn) -> ErrorLogged:
    key, traced = draw(keys), draw(st.booleans())
    return ErrorLogged(
        aggregate_id=key,
        occurred_at=draw(event_times),
        source=draw(texts),
        service_name=draw(texts) if traced else key,
        trace_id=key if traced else None,
        message=draw(texts),
        severity=draw(st.just("ERROR") | texts),
        logger=draw(texts),
        exception_type=draw(maybe),
        exception_message=draw(maybe),
        stacktrace=draw(maybe),
        span_id=draw(maybe),
        tags=draw(tags),
    )


def error(**changes: Any) -> ErrorLogged:
    fields: dict[str, Any] = {"service_name": "shop", "message": "no"} | changes
    return ErrorLogged(aggregate_id=changes.get("trace_id", "shop"), occurred_at=NOW, source="test", **fields)


def row_of(event: ErrorLogged) -> tuple[Any, ...]:
    return (
        event.service_name, event.severity, event.message, event.logger, event.exception_type, event.exception_message,
        event.stacktrace, event.trace_id, event.span_id, event.occurred_at, document(event.tags),
    )  # fmt: skip


def shown(ledger: Ledger) -> Counter[Any]:
    return Counter((*row[:-1], document(json.loads(row[-1]))) for row in ledger.execute(QUERY))


def on_logs(one: Batch) -> Batch:
    return replace(one, topic=LOGS)


def fold(ledger: Ledger, batches: Iterable[Batch]) -> list[Outcome]:
    store = Store(installed())
    return [outcome for one in batches for outcome in store.commit(ledger, store.prepare(on_logs(one)))]


def empty(ledger: Ledger) -> None:
    with ledger.transaction():
        for table in ("logs_g1.error_logs", "spanfold_core.journal_logs", "spanfold_core.rejected"):
            ledger.execute(f"DELETE FROM {table}".encode())
        ledger.execute("UPDATE spanfold_core.checkpoints SET next_offset = 0")


distinct = st.lists(errors(), max_size=8, unique_by=lambda event: (event.event_id, event.occurred_at))


@settings(max_examples=100, deadline=None)
@given(distinct, st.integers(0, 8))
def test_any_cut_folds_to_the_same_rows(events: Sequence[ErrorLogged], at: int) -> None:
    facts = read(judge(on_logs(batch(records_of(events)))), CODEC, {})
    one, other = PROJECTION.fold(facts[:at]), PROJECTION.fold(facts[at:])
    whole = Counter(map(repr, PROJECTION.fold(facts)))
    assert Counter(map(repr, PROJECTION.combine(one, other))) == whole
    assert Counter(map(repr, PROJECTION.combine(other, one))) == whole


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(distinct, st.data())
def test_any_order_any_cut_and_any_doubling_give_the_same_rows(
    ledger: Ledger, events: list[ErrorLogged], data: st.DataObject
) -> None:
    again = data.draw(st.lists(st.sampled_from(events), max_size=4)) if events else []
    log = records_of(data.draw(st.permutations([*events, *again])))
    batches = cut(log, data.draw(st.lists(st.integers(0, len(log)), max_size=4)))
    empty(ledger)
    fold(ledger, [*batches, *batches])
    assert shown(ledger) == Counter(map(row_of, events))


def test_errors_that_are_published_three_times_over_are_there_once(ledger: Ledger) -> None:
    events = [error(message=f"no {number}", stacktrace="at line 1\nat line 2") for number in range(20)]
    log = records_of(events * 3)
    (outcome,) = fold(ledger, [batch(log)])
    assert (outcome.folded, outcome.rejected) == (20, {"duplicate": 40})
    assert shown(ledger) == Counter(map(row_of, events))


def test_the_version_of_an_error_is_its_position(ledger: Ledger) -> None:
    fold(ledger, [batch([record(error(), 7)], start=0)])
    found = ledger.execute("SELECT version, event_id FROM spanfold.error_logs").fetchall()
    assert [(version, event_id.bytes) for version, event_id in found] == [(8, error().event_id)]


@pytest.mark.parametrize("trace_id", ["t" * 500, "ü" * 100_000])
def test_ids_names_and_texts_of_any_length_are_rows(ledger: Ledger, trace_id: str) -> None:
    long = error(
        trace_id=trace_id, service_name="\u20ac" * 170, message="m" * 1_000_000, exception_type="e" * 9_000,
        logger="l" * 9_000, span_id="s" * 9_000,
    )  # fmt: skip
    keyed = replace(long, aggregate_id=trace_id[:250], event_id=b"")
    fold(ledger, [batch([record(keyed)])])
    assert shown(ledger) == Counter([row_of(keyed)])


def test_a_service_name_that_no_key_can_hold_is_parked_and_leaves_the_others_alone(ledger: Ledger) -> None:
    good, bad = error(), error(trace_id="a", service_name="\u20ac" * 171)
    (outcome,) = fold(ledger, [batch(records_of([good, bad]))])
    assert (outcome.folded, outcome.parked) == (1, {"invalid": 1})
    detail = ledger.execute("SELECT detail FROM spanfold.parked_records").fetchone()
    assert detail == ("service_name is 513 bytes long; at most 512 fit into a key",)
    assert shown(ledger) == Counter([row_of(good)])


def test_an_event_of_another_topic_is_parked(ledger: Ledger) -> None:
    stranger = TraceCompleted(aggregate_id="a", occurred_at=NOW, source="test", end_time=NOW)
    (outcome,) = fold(ledger, [batch(records_of([error(), stranger]))])
    assert (outcome.folded, outcome.parked) == (1, {"invalid": 1})
    detail = ledger.execute("SELECT detail FROM spanfold.parked_records").fetchone()
    assert detail == ("TraceCompleted does not belong to spanfold.logs",)


def test_every_column_says_what_it_means(ledger: Ledger) -> None:
    uncommented = ledger.execute(
        "SELECT attname FROM pg_attribute"
        " WHERE attrelid = 'spanfold.error_logs'::regclass AND col_description(attrelid, attnum) IS NULL"
        " AND attnum > 0"
    )
    assert uncommented.fetchall() == []
