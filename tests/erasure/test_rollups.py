"""Whatever is folded, some traces erased at any places of the log: the rows are those of the rest."""

from collections.abc import Sequence
from typing import Any

import psycopg
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from spanfold.language.events import SpanRecorded, TraceErased, TraceEvent
from spanfold.projections.commit.store import Store
from spanfold.projections.projection import installed
from tests.support.strategies import NOW, calls, cut, distinct_events, events, records_of
from tests.support.trace_rows import empty, shown, told

THROUGH_POSTGRES = settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)

Written = tuple[list[TraceEvent], list[Any], list[int]]


@st.composite
def logs_with_erasures(draw: st.DrawFn) -> Written:
    """Distinct events; a log of them in any order, with erasures of some of their traces in it; where it is cut."""
    distinct = draw(distinct_events(14, events | calls))
    ids = sorted({event.aggregate_id for event in distinct})
    erased = draw(st.lists(st.sampled_from(ids), max_size=4)) if ids else []
    facts = [TraceErased(aggregate_id=each, occurred_at=NOW + number, source="") for number, each in enumerate(erased)]
    written = draw(st.permutations([*distinct, *facts]))
    return distinct, written, draw(st.lists(st.integers(0, len(written)), max_size=4))


def rest(distinct: Sequence[TraceEvent], written: Sequence[Any]) -> list[TraceEvent]:
    """The events of the traces that are not erased."""
    erased = {event.aggregate_id for event in written if isinstance(event, TraceErased)}
    return [event for event in distinct if event.aggregate_id not in erased]


def _span(trace_id: str, span_id: str, parent: str | None, service: str, minutes: int) -> SpanRecorded:
    return SpanRecorded(
        aggregate_id=trace_id, occurred_at=NOW, source="", span_id=span_id, parent_span_id=parent,
        service_name=service, operation_name="pay", start_time=NOW, end_time=NOW + minutes * 60_000_000,
    )  # fmt: skip


COUNTED_ELSEWHERE = [
    _span("a", "1", None, "shop", 0),
    _span("a", "2", "1", "bank", 3),
    _span("b", "1", None, "shop", 0),
]
"""A span that counts in the minute of its event's time, which is not that of its end."""


@THROUGH_POSTGRES
@given(logs_with_erasures())
@example(([*COUNTED_ELSEWHERE], [*COUNTED_ELSEWHERE, TraceErased(aggregate_id="a", occurred_at=NOW, source="")], []))
def test_the_rows_are_those_of_the_traces_that_are_left(ledger: psycopg.Connection[Any], written: Written) -> None:
    distinct, log, cuts = written
    empty(ledger)
    store = Store(installed())
    for each in cut(records_of(log), cuts):
        store.commit(ledger, store.prepare(each))
    assert shown(ledger) == told(rest(distinct, log))
