"""What the state of a trace folds into: the same as its events did."""

from collections.abc import Iterator, Sequence

from spanfold.application.aggregates import AggregateState, TraceState
from spanfold.projections.commit.reading import Fact, storable
from spanfold.projections.traces.fold import TracesPartial, fold


def from_states(states: Sequence[AggregateState]) -> TracesPartial:
    """The partial of these traces. Rows say more than the facts that are left do in two places: a state counts records, and
    knows the time of events, that lost against later ones.
    """
    partial = fold([fact for each in states for fact in _facts(each.state)])
    for each in states:
        trace = partial.traces[each.aggregate_id]
        trace.version = each.version
        trace.last_event_at = each.state.last_event_at
    return partial


def _facts(state: TraceState) -> Iterator[Fact]:
    for identity, span in state.spans.items():
        yield _fact(state.versions[identity] - 1, span.event_type, span.as_fields())
    for event in (state.created, state.closed):
        if event is not None:
            yield _fact(0, event.event_type, event.as_fields())


def _fact(offset: int, event_type: str, fields: dict[str, object]) -> Fact:
    """As spanfold.projections.commit.reading makes it; it was storable when it was folded."""
    storable(event_type, fields)
    return offset, event_type, fields
