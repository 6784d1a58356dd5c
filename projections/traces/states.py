"""Folds states of trace aggregates, into what their events fold into."""

from collections.abc import Iterator, Sequence
from functools import cache

from spanfold.application.aggregates import AggregateState, TraceState
from spanfold.projections.commit.reading import storable
from spanfold.projections.facts import Fact
from spanfold.projections.traces.fold import TracesPartial, fold
from spanfold.schemas.codec import Codec


def from_states(states: Sequence[AggregateState]) -> TracesPartial:
    """The partial of these traces. Version and last event time come from the state, because it also reflects events that lost
    against later ones and are no longer in it.
    """
    partial = fold([fact for aggregate in states for fact in _facts(aggregate.state)])
    for aggregate in states:
        trace = partial.traces[aggregate.aggregate_id]
        trace.version = aggregate.version
        trace.last_event_at = aggregate.state.last_event_at
    return partial


def _facts(state: TraceState) -> Iterator[Fact]:
    for identity, span in state.spans.items():
        yield _fact(state.versions[identity] - 1, span.event_type, span.as_fields())
    for event in (state.created, state.closed):
        if event is not None:
            yield _fact(0, event.event_type, event.as_fields())


def _fact(offset: int, event_type: str, fields: dict[str, object]) -> Fact:
    """The fact in the form that spanfold.projections.commit.reading gives it. It can be stored: it has been folded before."""
    decoded = _codec().with_texts(event_type, fields)
    storable(event_type, decoded)
    return offset, event_type, decoded


@cache
def _codec() -> Codec:
    return Codec()
