"""What the application does with traces, whatever stands behind its ports."""

from collections.abc import Mapping
from typing import Final

import structlog

from spanfold.application.domain.ids import ServiceId, TraceId
from spanfold.application.domain.traces import Trace, TraceStatus
from spanfold.application.ports import ConfigurationService, Notification, NotificationService, TelemetryRepository
from spanfold.language.errors import CommandRefused
from spanfold.language.events import TagValue

NOTIFICATION_ENABLED: Final = "notification.enabled"

log = structlog.get_logger("spanfold.application")


class TelemetryApplicationService:
    """Starts and ends traces. While the configuration `notification.enabled` is "true", it tells of each: trace.created,
    trace.completed. What fails in telling is logged and changes nothing else.
    """

    def __init__(
        self,
        repository: TelemetryRepository,
        notifications: NotificationService,
        configuration: ConfigurationService,
    ) -> None:
        self._repository = repository
        self._notifications = notifications
        self._configuration = configuration

    async def create_trace(
        self,
        service_id: str,
        operation_name: str,
        start: int,
        *,
        trace_id: str | None = None,
        tags: Mapping[str, TagValue] | None = None,
    ) -> Trace:
        """Start a trace at `start` (µs since 1970 UTC), under a random id unless one is given, and return it. The same trace
        started again changes nothing. CommandRefused when the id is another trace's.
        """
        wished = TraceId(trace_id) if trace_id else TraceId.new()
        trace = Trace(
            id=wished,
            service_id=ServiceId(service_id),
            operation_name=operation_name,
            start=start,
            tags=tags or {},
        )
        held = await self._repository.get_trace(wished) if trace_id else None
        if held is not None:
            _refuse_another(held, trace)
            return held
        await self._repository.save_trace(trace)
        await self._tell("trace.created", trace)
        return trace

    async def complete_trace(
        self,
        trace_id: str,
        end: int,
        *,
        status: str = TraceStatus.COMPLETED,
        tags: Mapping[str, TagValue] | None = None,
    ) -> Trace:
        """End a trace at `end` (µs since 1970 UTC) and return it. CommandRefused when it is not known, has ended already, or
        `end` lies before its start.
        """
        held = await self._repository.get_trace(TraceId(trace_id))
        if held is None:
            raise CommandRefused(f"trace {trace_id} is not known: create it first")
        trace = held.complete(end, tags, status)
        await self._repository.save_trace(trace)
        await self._tell("trace.completed", trace)
        return trace

    async def _tell(self, kind: str, trace: Trace) -> None:
        """After the trace is safe; nothing that goes wrong here may look as if the trace were not."""
        try:
            if await self._configuration.get(NOTIFICATION_ENABLED) == "true":
                await self._notifications.notify(_notification(kind, trace))
        except Exception as error:
            log.warning("a notification failed", kind=kind, trace_id=str(trace.id), error=str(error) or repr(error))


def _notification(kind: str, trace: Trace) -> Notification:
    return Notification(
        id=f"{kind}/{trace.id}",
        kind=kind,
        subject=f"{trace.service_id} {trace.operation_name}: {trace.status}",
        details={
            "trace_id": str(trace.id),
            "service_id": str(trace.service_id),
            "operation_name": trace.operation_name,
            "status": str(trace.status),
            "start": trace.start,
            "end": trace.end,
        },
    )


def _refuse_another(held: Trace, wished: Trace) -> None:
    def origin(trace: Trace) -> tuple[object, ...]:
        return (trace.service_id, trace.operation_name, trace.start, dict(trace.tags))

    if origin(held) != origin(wished):
        raise CommandRefused(
            f"trace {held.id} was started by {held.service_id} as {held.operation_name} at {held.start}: "
            "start another trace under an id of its own"
        )
