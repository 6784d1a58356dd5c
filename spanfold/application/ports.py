"""The ports of the application: what its core needs from the outside, as small protocols. Every adapter of a port passes the
port's contract suite in tests/contracts. The event store is another port, in application.event_store.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from spanfold.application.domain.ids import ServiceId, TraceId
from spanfold.application.domain.traces import Trace
from spanfold.language.errors import SpanfoldError


class TelemetryRepository(Protocol):
    """Stores traces of the domain model."""

    async def save_trace(self, trace: Trace) -> None:
        """Save the trace; once this returns, the methods below return it. Saving only adds: saving a trace again changes nothing,
        and a span that another process has added in the meantime stays.
        """

    async def get_trace(self, trace_id: TraceId) -> Trace | None:
        """The trace, or None if no start of it is known."""

    async def get_traces_by_service(self, service_id: ServiceId, limit: int = 100) -> list[Trace]:
        """Up to `limit` traces whose root operation belongs to the service, the latest start first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Notification:
    """An occurrence to report. `id` stays the same however often the notification is sent."""

    id: str
    kind: str
    subject: str
    details: Mapping[str, Any] = field(default_factory=dict)


class NotificationFailed(SpanfoldError):
    """The notification could not be delivered, despite retries."""

    exit_code = 4


class NotificationService(Protocol):
    """Sends notifications."""

    async def notify(self, notification: Notification) -> None:
        """Send it; again under the same id if it is unclear whether it arrived. NotificationFailed when it did not arrive."""


class ConfigurationService(Protocol):
    """Reads settings that may change while a process runs."""

    async def get(self, key: str) -> str | None:
        """The value of a key such as `notification.enabled`; None if it is not set."""
