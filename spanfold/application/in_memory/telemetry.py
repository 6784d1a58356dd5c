"""Repository, notifications and configuration in memory."""

from collections.abc import Mapping

from spanfold.application.aggregates.traces import TraceAggregate, TraceState
from spanfold.application.domain.ids import ServiceId, TraceId
from spanfold.application.domain.traces import Trace
from spanfold.application.ports import Notification
from spanfold.application.trace_facts import facts_to_add, trace_of


class InMemoryTelemetryRepository:
    """A TelemetryRepository in memory. Like the others it keeps the state that the events of a trace fold into."""

    def __init__(self) -> None:
        self._states: dict[str, TraceState] = {}

    async def save_trace(self, trace: Trace) -> None:
        state = self._states.get(trace.id) or TraceAggregate.initial(str(trace.id))
        for fact in facts_to_add(trace, state, "spanfold"):
            state = TraceAggregate.evolve(state, fact)
        self._states[trace.id] = state

    async def get_trace(self, trace_id: TraceId) -> Trace | None:
        state = self._states.get(trace_id)
        return None if state is None else trace_of(state)

    async def get_traces_by_service(self, service_id: ServiceId, limit: int = 100) -> list[Trace]:
        traces = [trace for state in self._states.values() if (trace := trace_of(state)) is not None]
        of_service = [trace for trace in traces if trace.service_id == service_id]
        return sorted(of_service, key=lambda trace: (-trace.start, trace.id))[:limit]


class InMemoryNotifications:
    """A NotificationService that keeps notifications in memory, one per id."""

    def __init__(self) -> None:
        self._sent: dict[str, Notification] = {}

    @property
    def sent(self) -> list[Notification]:
        """The notifications, in the order in which they were first sent."""
        return list(self._sent.values())

    async def notify(self, notification: Notification) -> None:
        self._sent.setdefault(notification.id, notification)


class InMemoryConfiguration:
    """A ConfigurationService in memory, with these values; `set` changes one, or removes it with None."""

    def __init__(self, values: Mapping[str, str] | None = None) -> None:
        self._values = dict(values or {})

    async def get(self, key: str) -> str | None:
        return self._values.get(key)

    def set(self, key: str, value: str | None) -> None:
        if value is None:
            self._values.pop(key, None)
        else:
            self._values[key] = value
