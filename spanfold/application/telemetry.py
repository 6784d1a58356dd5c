"""The application service for traces, independent of the adapters behind its ports."""

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
    """Starts and completes traces. While the configuration `notification.enabled` is "true", it sends a notification of each:
    trace.created, trace.completed. If that fails, the failure is logged and nothing else changes.
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
        """Start a trace at `start` (µs since 1970 UTC) and return it; without a `trace_id` it gets a random one. Starting the
        same trace again changes nothing. CommandRefused when another trace has this id.
        """
        requested_id = TraceId(trace_id) if trace_id else TraceId.new()
        trace = Trace(
            id=requested_id,
            service_id=ServiceId(service_id),
            operation_name=operation_name,
            start=start,
            tags=tags or {},
        )
        existing = await self._repository.get_trace(requested_id) if trace_id else None
        if existing is not None:
            _refuse_another(existing, trace)
            return existing
        await self._repository.save_trace(trace)
        await self._notify("trace.created", trace)
        return trace

    async def complete_trace(
        self,
        trace_id: str,
        end: int,
        *,
        status: str = TraceStatus.COMPLETED,
        tags: Mapping[str, TagValue] | None = None,
    ) -> Trace:
        """Complete a trace at `end` (µs since 1970 UTC) and return it. CommandRefused when it is unknown or has already ended, or
        `end` is before its start.
        """
        existing = await self._repository.get_trace(TraceId(trace_id))
        if existing is None:
            raise CommandRefused(f"trace {trace_id} is unknown: create it first")
        trace = existing.complete(end, tags, status)
        await self._repository.save_trace(trace)
        await self._notify("trace.completed", trace)
        return trace

    async def _notify(self, kind: str, trace: Trace) -> None:
        """Send a notification if they are enabled. Never raises: the trace is saved already."""
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


def _refuse_another(existing: Trace, requested: Trace) -> None:
    def origin(trace: Trace) -> tuple[object, ...]:
        return (trace.service_id, trace.operation_name, trace.start, dict(trace.tags))

    if origin(existing) != origin(requested):
        raise CommandRefused(
            f"trace {existing.id} was already started by {existing.service_id} as {existing.operation_name} at "
            f"{existing.start}: use another id for another trace"
        )
