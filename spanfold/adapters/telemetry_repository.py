"""Traces of the domain in the log: saved as events, found through the read models, loaded from the journal, which is exact."""

import asyncio
from typing import Final

from spanfold.adapters.event_store import TIMEOUT_S, KafkaEventStore
from spanfold.application.aggregates import TraceAggregate, TraceState
from spanfold.application.domain.ids import ServiceId, TraceId
from spanfold.application.domain.traces import Trace
from spanfold.application.event_store import Compacted, Consistency
from spanfold.application.messages import NotYetReflected
from spanfold.application.trace_facts import facts_to_add, trace_of
from spanfold.language.positions import Position
from spanfold.language.topics import TRACES
from spanfold.projections.traces import PROJECTION


class KafkaTelemetryRepository:
    """A TelemetryRepository over this store. `source` is named in the events that it appends. Parked records of a trace are
    left out. NotYetReflected when the read models do not show a saved trace within `timeout_s`; it is in the log all the same.
    """

    def __init__(self, store: KafkaEventStore, *, source: str = "spanfold", timeout_s: float = TIMEOUT_S) -> None:
        self._store, self._source, self._timeout_s = store, source, timeout_s

    async def save_trace(self, trace: Trace) -> None:
        state, last = await self._load(trace.id)
        facts = facts_to_add(trace, state, self._source)
        if facts:
            last = (await self._store.append_events(facts)).position
        if last is not None:
            await self._reflected(last)

    async def get_trace(self, trace_id: TraceId) -> Trace | None:
        state, _ = await self._load(trace_id)
        return trace_of(state)

    async def get_traces_by_service(self, service_id: ServiceId, limit: int = 100) -> list[Trace]:
        rows = await self._store.postgres.rows(TRACES_BY_SERVICE, (service_id, limit), within_s=self._timeout_s)
        traces = await asyncio.gather(*(self.get_trace(TraceId.known(trace_id)) for (trace_id,) in rows))
        return [trace for trace in traces if trace is not None]

    async def _load(self, trace_id: str) -> tuple[TraceState, Position | None]:
        """The trace's state without its parked records, and its last position; from its snapshot where older records are gone."""
        aggregate = TraceAggregate(trace_id)
        try:
            judged = await self._store.judged(TRACES, trace_id, 0, Consistency.EVENTUAL)
        except Compacted:
            snapshot = await self._store.get_snapshot(TRACES, trace_id, TraceAggregate.fold_version)
            if snapshot is None:
                raise
            state = TraceAggregate.from_plain(snapshot.state)
            aggregate = TraceAggregate(trace_id, state=state, version=snapshot.version)
            judged = await self._store.judged(TRACES, trace_id, snapshot.version, Consistency.EVENTUAL)
        for record in judged.records:
            for recorded in self._store.events_of(record) if record.parked is None else ():
                aggregate.apply_event(recorded.event, recorded.version)
        return aggregate.state, judged.records[-1].position if judged.records else None

    async def _reflected(self, position: Position) -> None:
        try:
            await self._store.progress.passes([position], self._timeout_s, PROJECTION.name)
        except TimeoutError as error:
            raise NotYetReflected((position,), self._timeout_s) from error


TRACES_BY_SERVICE: Final = """
SELECT trace_id FROM spanfold.traces WHERE service_name = %s ORDER BY start_time DESC, trace_id LIMIT %s
"""
