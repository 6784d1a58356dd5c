"""The domain model: services, traces and spans as values with rules. A legal move returns the next value, an illegal one is
refused with CommandRefused, which says why and what is legal. Times are µs since 1970 UTC.
"""

from spanfold.application.domain.ids import InstanceId, ServiceId, SpanId, TraceId
from spanfold.application.domain.services import Environment, Health, Service
from spanfold.application.domain.spans import Span
from spanfold.application.domain.traces import Trace, TraceStatus

__all__ = [
    "Environment",
    "Health",
    "InstanceId",
    "Service",
    "ServiceId",
    "Span",
    "SpanId",
    "Trace",
    "TraceId",
    "TraceStatus",
]
