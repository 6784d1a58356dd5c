"""Aggregates: how commands become events, and events become state.

A package adds its own through the entry point group `spanfold.aggregates` (name = "module:Class"), and their topics and schemas
through `spanfold.topics` and `spanfold.schemas`. spanfold's own aggregates are registered in the same way.
"""

from spanfold.application.aggregates.base import PLAIN_SNAPSHOT, Aggregate, AggregateState
from spanfold.application.aggregates.installed import aggregate_of, event_class, installed_aggregates, snapshot_types
from spanfold.application.aggregates.metrics import MetricSeriesAggregate, MetricSeriesState
from spanfold.application.aggregates.services import (
    ChangeServiceHealth,
    DeregisterService,
    RegisterService,
    ServiceAggregate,
    ServiceInstance,
    ServiceState,
)
from spanfold.application.aggregates.traces import (
    AddSpan,
    CompleteTrace,
    FailTrace,
    StartTrace,
    TraceAggregate,
    TraceState,
)

__all__ = [
    "PLAIN_SNAPSHOT",
    "AddSpan",
    "Aggregate",
    "AggregateState",
    "ChangeServiceHealth",
    "CompleteTrace",
    "DeregisterService",
    "FailTrace",
    "MetricSeriesAggregate",
    "MetricSeriesState",
    "RegisterService",
    "ServiceAggregate",
    "ServiceInstance",
    "ServiceState",
    "StartTrace",
    "TraceAggregate",
    "TraceState",
    "aggregate_of",
    "event_class",
    "installed_aggregates",
    "snapshot_types",
]
