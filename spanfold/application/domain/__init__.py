"""The domain model: services, traces and spans as immutable values with rules. A method that changes one returns the new value,
or raises CommandRefused, which says what the rule is. Times are µs since 1970 UTC.
"""

from spanfold.application.domain.ids import InstanceId, ServiceId, SpanId, TraceId
from spanfold.application.domain.services import Environment, Health, InstanceStatus, Service
from spanfold.application.domain.spans import Span
from spanfold.application.domain.traces import Trace, TraceStatus

__all__ = [
    "Environment",
    "Health",
    "InstanceId",
    "InstanceStatus",
    "Service",
    "ServiceId",
    "Span",
    "SpanId",
    "Trace",
    "TraceId",
    "TraceStatus",
]
