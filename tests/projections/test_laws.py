"""Law 2 and law 3: whatever the order, the cuts and the repetitions, the same rows, each fact counted once.

What the rows must be is said by `reference.told`, one event after the other in the dumbest way.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from functools import reduce
from typing import Any

import psycopg
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from spanfold.language.events import SpanRecorded, TraceCompleted, TraceCreated, TraceEvent, TraceFailed
from spanfold.language.times import as_datetime
from spanfold.postgres.copying import PG_EPOCH_US
from spanfold.projections.commit.reading import read
from spanfold.projections.commit.store import Store
from spanfold.projections.commit.verdicts import judge
from spanfold.projections.facts import Fact
from spanfold.projections.projection import installed
from spanfold.projections.retention.retention_horizons import trim
from spanfold.projections.traces import PROJECTION, TracesPartial
from tests.support.strategies import (
    CODEC,
    DAY,
    LOG_TIME_MS,
    NOW,
    Record,
    batch_of_events,
    calls,
    distinct_events,
    logs,
    rerecorded,
    rooted,
)
from tests.support.trace_rows import Rows, checkpoints, document, empty, shown, told, verdicts

MINUTE = 60_000_000

PURE = settings(max_examples=100, deadline=None)
THROUGH_POSTGRES = settings(
    max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)

# The fold is a commutative monoid


def facts_of(events: Sequence[TraceEvent]) -> list[Fact]:
    return read(judge(batch_of_events(events)), CODEC, {})


def normal(partial: TracesPartial) -> tuple[Any, ...]:
    """The partial as a tuple that can be compared."""
    return partial.traces, partial.spans, partial.operations


def in_three(data: st.DataObject) -> tuple[list[Fact], list[Fact], list[Fact]]:
    """Facts that are all different ones, in three parts."""
    facts = facts_of(data.draw(distinct_events(12)))
    low, high = sorted((data.draw(st.integers(0, len(facts))), data.draw(st.integers(0, len(facts)))))
    return facts[:low], facts[low:high], facts[high:]


ZERO = PROJECTION.fold(())


@PURE
@given(st.data())
def test_any_order_of_events_folds_to_the_same_partial(data: st.DataObject) -> None:
    facts = facts_of(data.draw(distinct_events()))
    other = data.draw(st.permutations(facts))
    assert normal(PROJECTION.fold(facts)) == normal(PROJECTION.fold(other))


@PURE
@given(st.data())
def test_any_cut_folds_to_the_same_partial(data: st.DataObject) -> None:
    facts = facts_of(data.draw(distinct_events()))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(facts)), max_size=4)))
    parts = [facts[low:high] for low, high in zip([0, *cuts], [*cuts, len(facts)], strict=True)]
    together = reduce(PROJECTION.combine, map(PROJECTION.fold, parts))
    assert normal(together) == normal(PROJECTION.fold(facts))


@PURE
@given(st.data())
def test_combine_is_commutative_and_associative_and_has_a_zero(data: st.DataObject) -> None:
    one, two, three = map(PROJECTION.fold, in_three(data))
    combine = PROJECTION.combine
    assert normal(combine(one, two)) == normal(combine(two, one))
    assert normal(combine(combine(one, two), three)) == normal(combine(one, combine(two, three)))
    assert normal(combine(one, ZERO)) == normal(combine(ZERO, one)) == normal(one)


@PURE
@given(st.data())
def test_combine_leaves_what_it_was_given_as_it_was(data: st.DataObject) -> None:
    first, second, _ = in_three(data)
    one, two = PROJECTION.fold(first), PROJECTION.fold(second)
    PROJECTION.combine(one, two)
    assert normal(one) == normal(PROJECTION.fold(first))
    assert normal(two) == normal(PROJECTION.fold(second))


@PURE
@given(distinct_events())
def test_the_partial_says_what_the_events_tell(events: list[TraceEvent]) -> None:
    partial = PROJECTION.fold(facts_of(events))
    traces, spans, operations, _ = told(events)
    assert sum(spans.values()) == len(partial.spans)
    assert {key: rollup.calls for key, rollup in partial.operations.items()} == {
        (*key[:4], key[4] - PG_EPOCH_US): row["calls"] for key, row in operations.items()
    }
    assert partial.traces.keys() == traces.keys()
    for trace_id, trace in partial.traces.items():
        row = traces[trace_id]
        assert (trace.span_count, trace.error_count) == (row["span_count"], row["error_count"])
        assert trace.last_event_at == row["last_event_at"]
        assert (trace.root is not None) == row["has_root"]
        closed = trace.closed if trace.closed and trace.closed.root == trace.root else None
        if closed is not None:
            assert (closed.status, closed.error, closed.end_time) == (row["status"], row["error"], row["end_time"])
        of_trace = [event for event in events if event.aggregate_id == trace_id]
        assert trace.version == 1 + max(map(events.index, of_trace))


# The same through Postgres


def fold(ledger: psycopg.Connection[Any], batches: Iterable[Any]) -> None:
    store = Store(installed())
    for each in batches:
        store.commit(ledger, store.prepare(each))


def first_and_again(written: Sequence[Record]) -> dict[int, str]:
    """The verdicts of a log whose records are all well-formed: what has been there before is a duplicate."""
    seen: set[bytes] = set()
    said = {}
    for each in written:
        event_id = dict(each.headers)["event_id"]
        assert event_id
        said[each.offset] = "duplicate" if event_id in seen else "accepted"
        seen.add(event_id)
    return said


def _completed(at: int, source: str, status: str) -> TraceCompleted:
    return TraceCompleted(aggregate_id="a", occurred_at=at, source=source, end_time=at, status=status)


def _failed(at: int) -> TraceFailed:
    return TraceFailed(aggregate_id="a", occurred_at=at, source="s", end_time=at, error="ü", tags={"t": 1})


@THROUGH_POSTGRES
@given(logs())
def test_any_order_any_cut_and_any_doubling_give_the_same_rows(
    ledger: psycopg.Connection[Any], log: tuple[list[TraceEvent], list[Record], list[Any]]
) -> None:
    events, written, batches = log
    empty(ledger)
    fold(ledger, batches)
    assert shown(ledger) == told(events)
    assert verdicts(ledger) == first_and_again(written)
    if written:
        assert checkpoints(ledger) == {len(written)}


@settings(THROUGH_POSTGRES, max_examples=100)
@given(logs(), st.randoms(use_true_random=False))
def test_batches_that_come_again_at_any_time_change_nothing(
    ledger: psycopg.Connection[Any], log: tuple[list[TraceEvent], list[Record], list[Any]], random: Any
) -> None:
    events, written, batches = log
    again = []
    for at, each in enumerate(batches):
        again += [each, *random.choices(batches[: at + 1], k=random.randrange(3))]
    empty(ledger)
    fold(ledger, again)
    assert shown(ledger) == told(events)
    assert verdicts(ledger) == first_and_again(written)


@settings(THROUGH_POSTGRES, max_examples=100)
@given(logs(max_events=7, events=calls))
def test_who_called_whom_is_counted_once_whichever_came_first(
    ledger: psycopg.Connection[Any], log: tuple[list[TraceEvent], list[Record], list[Any]]
) -> None:
    events, _, batches = log
    empty(ledger)
    fold(ledger, batches)
    assert shown(ledger).dependencies == told(events).dependencies


@settings(THROUGH_POSTGRES, max_examples=150)
@given(logs(max_events=9, events=rerecorded))
def test_a_span_that_is_recorded_again_is_one_span_with_one_call(
    ledger: psycopg.Connection[Any], log: tuple[list[TraceEvent], list[Record], list[Any]]
) -> None:
    events, _, batches = log
    empty(ledger)
    fold(ledger, batches)
    assert shown(ledger) == told(events)


@settings(THROUGH_POSTGRES, max_examples=100)
@given(logs(max_events=8, events=rooted))
def test_of_several_roots_the_first_is_shown_whole(
    ledger: psycopg.Connection[Any], log: tuple[list[TraceEvent], list[Record], list[Any]]
) -> None:
    events, _, batches = log
    empty(ledger)
    fold(ledger, batches)
    assert shown(ledger).traces == told(events).traces


@settings(THROUGH_POSTGRES, max_examples=75)
@given(logs(max_events=9, events=rerecorded), st.sets(st.sampled_from(["a", "b"]), min_size=1))
def test_erasing_takes_off_what_spans_recorded_again_have_added(
    ledger: psycopg.Connection[Any], log: tuple[list[TraceEvent], list[Record], list[Any]], erased: set[str]
) -> None:
    events, _, batches = log
    empty(ledger)
    fold(ledger, batches)
    with ledger.transaction(), ledger.cursor() as cursor:
        PROJECTION.erase(cursor, "traces_g1", list(erased), 0)
    assert shown(ledger) == told([event for event in events if event.aggregate_id not in erased])


honest = rerecorded.map(
    lambda span: replace(
        span, start_time=span.start_time - 8 * DAY, end_time=span.end_time - 8 * DAY, occurred_at=span.end_time - 8 * DAY,
        event_id=b"",
    )
)  # fmt: skip
"""Spans of the days before NOW that say when they ended."""

horizons = st.sampled_from([8 * DAY, 8 * DAY - MINUTE, DAY, DAY - MINUTE, 0]).map(
    lambda before: (NOW - before) // MINUTE * MINUTE
)


@settings(THROUGH_POSTGRES, max_examples=100)
@given(distinct_events(9, honest), st.integers(0, 9), horizons)
def test_what_comes_after_old_rows_were_deleted_counts_as_if_they_were_there(
    ledger: psycopg.Connection[Any], events: list[TraceEvent], cut: int, horizon: int
) -> None:
    log = [*events[:cut], *(event for event in events[cut:] if event.occurred_at >= horizon)]
    empty(ledger)
    fold(ledger, [batch_of_events(log[:cut])])
    _prune(ledger, horizon)
    fold(ledger, [batch_of_events([event], offset) for offset, event in enumerate(log[cut:], len(log[:cut]))])
    assert _since(shown(ledger), horizon) == _since(told(log), horizon)


def _prune(ledger: psycopg.Connection[Any], horizon: int) -> None:
    """Delete what no event from the horizon on looks up or changes."""
    kept_from = as_datetime(horizon)
    minutes = dict.fromkeys(("operation_minutes", "service_dependencies"), kept_from)
    trim(ledger, "traces_g1", PROJECTION.metadata, {"spans": kept_from - timedelta(days=7), **minutes})


def _since(rows: Rows, horizon: int) -> Any:
    """What does not depend on rows that may be gone."""
    names = ("start_time", "end_time", "span_count", "error_count", "last_event_at")
    return (
        {trace_id: [row[name] for name in names] for trace_id, row in rows.traces.items()},
        {row: count for row, count in rows.spans.items() if row[9] >= horizon - 7 * DAY},
        {key: row for key, row in rows.operations.items() if key[-1] >= horizon},
        {key: row for key, row in rows.dependencies.items() if key[-1] >= horizon},
    )


@settings(THROUGH_POSTGRES, max_examples=25)
@given(st.permutations([_completed(NOW, "s", "ok"), _failed(NOW), _completed(NOW + 1, "s", "late"), _failed(NOW - 1)]))
@example([_failed(NOW), _completed(NOW, "s", "ok")])
@example([_completed(NOW, "s", "ok"), _failed(NOW)])
def test_of_contending_ends_the_later_event_wins_whichever_came_last(
    ledger: psycopg.Connection[Any], ends: list[TraceEvent]
) -> None:
    empty(ledger)
    fold(ledger, [batch_of_events([end], start) for start, end in enumerate(ends)])
    assert shown(ledger) == told(ends)


def test_the_dumb_fold_itself_says_what_one_expects() -> None:
    created = TraceCreated(
        aggregate_id="a", occurred_at=1, source="s", service_name="shop", operation_name="pay", start_time=1_000,
        tags={"a": 1, "b": 1},
    )  # fmt: skip
    span = SpanRecorded(
        aggregate_id="a", occurred_at=9, source="s", span_id="1", parent_span_id=None, service_name="shop",
        operation_name="pay", start_time=0, end_time=6_000, status="error",
    )  # fmt: skip
    completed = TraceCompleted(aggregate_id="a", occurred_at=5, source="s", end_time=5_000, tags={"b": 2.0})
    called = replace(
        span, span_id="2", parent_span_id="1", service_name="bank", start_time=100, end_time=5_132, event_id=b""
    )
    traces, spans, operations, dependencies = told([called, completed, span, created])
    assert traces == {
        "a": {
            "service_name": "shop", "operation_name": "pay", "status": "completed", "start_time": 1_000,
            "end_time": 5_000, "duration_ms": 4.0, "tags": document({"a": 1, "b": 2}), "span_count": 2,
            "error_count": 2, "error": None, "has_root": True, "late_events": 2, "last_event_at": 9,
        }
    }  # fmt: skip
    assert len(spans) == 2
    rollup = {"calls": 1, "errors": 1, "duration_ms_sum": 5.032, "duration_histogram": {Decimal("5.119"): 1}}
    assert operations["bank", "pay", "internal", "", 0] == rollup
    assert dependencies == {("shop", "bank", 0): rollup}
    assert LOG_TIME_MS * 1000 == NOW
