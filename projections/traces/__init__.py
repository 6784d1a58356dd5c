"""The projection `traces`: tables traces, spans, operation_minutes and service_dependencies, from TraceCreated, SpanRecorded,
TraceCompleted and TraceFailed.

tables.py defines the tables and views.py the public views; fold.py folds events, states.py folds states of aggregates, merge.py
writes a partial, erase.py deletes traces.
"""

from collections.abc import Sequence
from typing import Any, Final

from psycopg import Cursor

from spanfold.application.aggregates import AggregateState
from spanfold.language.topics import TRACES, Topic
from spanfold.projections.facts import Fact
from spanfold.projections.projection import View
from spanfold.projections.traces.erase import erase
from spanfold.projections.traces.fold import TracePartial, TracesPartial, combine, fold
from spanfold.projections.traces.merge import merge
from spanfold.projections.traces.states import from_states
from spanfold.projections.traces.tables import metadata
from spanfold.projections.traces.views import VIEWS

__all__ = ["PROJECTION", "TracePartial", "TracesPartial", "TracesProjection"]


class TracesProjection:
    """See spanfold.projections.projection.Projection."""

    name = "traces"
    fold_version = 1
    topics: Sequence[Topic] = (TRACES,)
    metadata = metadata
    views: Sequence[View] = VIEWS

    def fold(self, facts: Sequence[Fact]) -> TracesPartial:
        return fold(facts)

    def combine(self, one: TracesPartial, other: TracesPartial) -> TracesPartial:
        return combine(one, other)

    def merge(self, cursor: Cursor[Any], schema: str, partial: TracesPartial, partition: int) -> None:
        merge(cursor, schema, partial, partition)

    def from_states(self, states: Sequence[AggregateState]) -> TracesPartial:
        return from_states(states)

    def erase(self, cursor: Cursor[Any], schema: str, aggregate_ids: Sequence[str], partition: int) -> None:
        erase(cursor, schema, aggregate_ids, partition)


PROJECTION: Final = TracesProjection()
