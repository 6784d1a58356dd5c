"""What senders do in the field, and the one number that is right."""

from collections.abc import Sequence
from itertools import permutations
from typing import Any

import pytest

from spanfold.language.events import SpanRecorded, TraceEvent
from spanfold.producers.spans import trace_created, trace_ended
from spanfold.projections.commit.store import Store
from spanfold.projections.projection import installed
from tests.support.databases import Ledger
from tests.support.strategies import NOW, batch_of_events

SECOND = 1_000_000

TRACE = "SELECT operation_name, status, duration_ms, error, span_count, error_count, has_root FROM spanfold.traces"


def span(name: str, start: int, end: int, **changes: Any) -> SpanRecorded:
    """A root span, unless `changes` give it a parent."""
    fields: dict[str, Any] = {
        "span_id": name,
        "parent_span_id": None,
        "service_name": "shop",
        "kind": "server",
    } | changes
    return SpanRecorded(
        aggregate_id="t", source="test", operation_name=name, occurred_at=end, start_time=start, end_time=end, **fields
    )


def facts(root: SpanRecorded) -> list[TraceEvent]:
    """What is published of a root span."""
    return [trace_created(root), root, trace_ended(root)]


def fold(ledger: Ledger, *batches: Sequence[TraceEvent]) -> None:
    store, start = Store(installed()), 0
    for events in batches:
        store.commit(ledger, store.prepare(batch_of_events(events, start)))
        start += len(events)


def one_row(ledger: Ledger, query: str) -> Any:
    (row,) = ledger.execute(query.encode()).fetchall()
    return row


CHECKOUT = span("A checkout", NOW - 60 * SECOND, NOW - 50 * SECOND, status="error", status_message="card refused")


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("beacon_start", [NOW - 55 * SECOND, NOW - 40 * SECOND])
def test_a_second_root_hides_no_failure(ledger: Ledger, first: int, beacon_start: int) -> None:
    roots = [CHECKOUT, span("B beacon", beacon_start, beacon_start + SECOND)]
    fold(ledger, facts(roots[first]), facts(roots[1 - first]))
    assert one_row(ledger, TRACE) == ("A checkout", "failed", 10_000, "card refused", 2, 1, True)


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_a_root_with_an_earlier_start_takes_over_whole(ledger: Ledger, order: Sequence[int]) -> None:
    earlier = span("gateway", NOW - 61 * SECOND, NOW - 40 * SECOND, service_name="edge")
    parts = [facts(CHECKOUT), facts(earlier)[:2], facts(earlier)[2:]]
    fold(ledger, *(parts[at] for at in order))
    assert one_row(ledger, TRACE) == ("gateway", "completed", 21_000, None, 2, 1, True)


def test_a_beginning_without_its_end_is_started_whatever_other_roots_say(ledger: Ledger) -> None:
    earlier = span("gateway", NOW - 61 * SECOND, NOW - 40 * SECOND)
    fold(ledger, facts(CHECKOUT), [trace_created(earlier)])
    assert one_row(ledger, TRACE) == ("gateway", "started", None, None, 1, 1, True)


def test_spans_without_a_root_show_the_first_of_them(ledger: Ledger) -> None:
    late = span("late", NOW - 5 * SECOND, NOW - 3 * SECOND, parent_span_id="x")
    early = span("early", NOW - 6 * SECOND, NOW - 5 * SECOND, parent_span_id="x")
    fold(ledger, [late], [early])
    assert one_row(ledger, TRACE) == ("early", "incomplete", 3_000, None, 2, 0, False)


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_a_span_that_is_exported_at_its_start_and_at_its_end_is_one_call(ledger: Ledger, order: Sequence[int]) -> None:
    caller = span("caller", NOW - 10 * SECOND, NOW, service_name="front", kind="client")
    started = span("job", NOW - 9 * SECOND, NOW - 9 * SECOND, parent_span_id="caller", status="error")
    ended = span("job", NOW - 9 * SECOND, NOW, parent_span_id="caller")
    fold(ledger, *([[caller], [started], [ended]][at] for at in order))
    shown = "SELECT duration_ms, status FROM spanfold.spans WHERE span_id = 'job'"
    assert one_row(ledger, shown) == (9_000, "unset")
    counted = "SELECT sum(calls), sum(errors), spanfold.p99(duration_histogram) >= 9000 FROM spanfold.operation_minutes"
    assert one_row(ledger, f"{counted} WHERE operation_name = 'job'") == (1, 0, True)
    assert one_row(ledger, "SELECT sum(calls), sum(errors) FROM spanfold.service_dependencies") == (1, 0)
    assert one_row(ledger, "SELECT span_count, error_count FROM spanfold.traces") == (2, 0)


@pytest.mark.parametrize("size", [1, 7, 200])
def test_a_thousand_spans_with_one_id_are_no_million_calls(ledger: Ledger, size: int) -> None:
    parents = [
        span("p", NOW + number, NOW + 1000, service_name=f"parent-{number}", kind=kind, parent_span_id="root")
        for number, kind in enumerate(["client", "server", "internal"] * 17)
    ]
    children = [
        span(f"c{number}", NOW, NOW + 1000, service_name=f"child-{number}", parent_span_id="p") for number in range(50)
    ]
    log = [*parents, *children]
    log.sort(key=lambda event: event.event_id[8:])
    fold(ledger, *(log[at : at + size] for at in range(0, len(log), size)))
    calls = "SELECT child, parent, sum(calls) FROM spanfold.service_dependencies GROUP BY child, parent"
    assert set(ledger.execute(calls.encode())) == {
        (f"child-{number}", parent, 1) for number in range(50) for parent in ("parent-0", "parent-1", "parent-2")
    }
