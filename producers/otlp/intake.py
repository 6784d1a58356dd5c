"""Spans of a request into the log: published, and acknowledged by Kafka before the request is answered."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from spanfold.language.errors import InvalidInput, LogUnavailable
from spanfold.language.events import DomainEvent
from spanfold.language.settings import Settings
from spanfold.producers.otlp.acknowledgements import Acknowledgements
from spanfold.producers.otlp.spans import origin_in_scope, origin_of_resource, recorded
from spanfold.producers.publisher import TelemetryPublisher
from spanfold.producers.resources import Origin
from spanfold.producers.spans import events_of_span

ACK_S: Final = 5.0
"""How long Kafka may take to acknowledge. SDKs give a request 10 s by default: some of it must be left for a retry."""

ROOM_S: Final = 2.0
"""How long a request waits for room in the publisher's buffer."""

_SLICE: Final = 100
"""Spans that are published before other requests get their turn on the event loop: a few ms."""

_ROOM_POLL_S: Final = 0.01
_NAMED_REASONS: Final = 5
_NAME_CHARACTERS: Final = 80


def otlp_publisher(settings: Settings) -> TelemetryPublisher:
    """A publisher whose outcomes come within ACK_S and that never blocks the event loop."""
    return TelemetryPublisher(settings, block_timeout_s=0.0, linger_ms=5.0, message_timeout_s=ACK_S)


FINISH_S: Final = int(ACK_S + 5.0)
"""How long requests in flight may take when the process is told to stop."""


@dataclass(slots=True)
class Intake:
    """The outcome of a request's spans; `reasons` says why the first rejected ones are invalid."""

    accepted: int = 0
    rejected: int = 0
    reasons: list[str] = field(default_factory=list)

    def reject(self, span: Span, why: InvalidInput) -> None:
        """Count a span that can never be accepted."""
        self.rejected += 1
        if len(self.reasons) < _NAMED_REASONS:
            self.reasons.append(f"span {span.name[:_NAME_CHARACTERS]!r}: {why}")


async def publish(publisher: TelemetryPublisher, request: ExportTraceServiceRequest) -> tuple[Intake, Acknowledgements]:
    """Publish every valid span of the request; their acknowledgements are still to be awaited.

    LogUnavailable when there is no room for them, or Kafka has already refused one: some may have been published by then,
    and publishing them again is safe.
    """
    intake, acknowledgements = Intake(), Acknowledgements()
    for number, (span, origin) in enumerate(_spans(request)):
        if number % _SLICE == 0:
            await asyncio.sleep(0)
        try:
            for event in events_of_span(recorded(span, origin)):
                if not _offer(publisher, event, acknowledgements):
                    await _offer_until_there_is_room(publisher, event, acknowledgements)
        except InvalidInput as error:
            intake.reject(span, error)
        else:
            intake.accepted += 1
    return intake, acknowledgements


def _spans(request: ExportTraceServiceRequest) -> Iterator[tuple[Span, Origin]]:
    for of_resource in request.resource_spans:
        of_all = origin_of_resource(of_resource.resource)
        for of_scope in of_resource.scope_spans:
            origin = origin_in_scope(of_all, of_scope.scope)
            for span in of_scope.spans:
                yield span, origin


def _offer(publisher: TelemetryPublisher, event: DomainEvent, acknowledgements: Acknowledgements) -> bool:
    try:
        publisher.publish(event, on_delivery=acknowledgements.note)
    except LogUnavailable:
        return False
    acknowledgements.sent += 1
    return True


async def _offer_until_there_is_room(
    publisher: TelemetryPublisher, event: DomainEvent, acknowledgements: Acknowledgements
) -> None:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + ROOM_S
    while loop.time() < deadline and acknowledgements.failure is None:
        await asyncio.sleep(_ROOM_POLL_S)
        if _offer(publisher, event, acknowledgements):
            return
    raise acknowledgements.failure or LogUnavailable(
        f"Kafka accepts no events and the publisher's buffer has been full for {ROOM_S:g} s"
    )
