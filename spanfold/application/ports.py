"""The ports of the application: the smallest questions that its core asks of the world. Every adapter of a port passes the
port's contract suite in tests/contracts. The event store is a port of its own, application.event_store.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from spanfold.application.domain.ids import ServiceId, TraceId
from spanfold.application.domain.traces import Trace
from spanfold.language.errors import SpanfoldError


class TelemetryRepository(Protocol):
    """Traces, as the domain has them."""

    async def save_trace(self, trace: Trace) -> None:
        """Keep the trace; once this returns, the two below see it. Saving adds what is not kept yet and takes nothing away: saved
        again it changes nothing, and a span that another process has added in between stays.
        """

    async def get_trace(self, trace_id: TraceId) -> Trace | None:
        """The trace, or None when it has not been started as far as is known."""

    async def get_traces_by_service(self, service_id: ServiceId, limit: int = 100) -> list[Trace]:
        """The traces whose root operation is the service's, the latest start first, at most `limit`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Notification:
    """Something that happened and that somebody wants to hear of. `id` is the same however often it is sent."""

    id: str
    kind: str
    subject: str
    details: Mapping[str, Any] = field(default_factory=dict)


class NotificationFailed(SpanfoldError):
    """The outside world could not be told, also not by trying again."""

    exit_code = 4


class NotificationService(Protocol):
    """Tells the outside world."""

    async def notify(self, notification: Notification) -> None:
        """Tell it once or, when it is unclear whether it arrived, once more under the same id. NotificationFailed when it
        did not.
        """


class ConfigurationService(Protocol):
    """Settings that may change while a process runs."""

    async def get(self, key: str) -> str | None:
        """The value of a key such as `notification.enabled`; None when it is not set."""
