"""Adapters without a server, for tests and trials: they pass the same contract suites as the real ones."""

from spanfold.application.in_memory.event_store import InMemoryEventStore
from spanfold.application.in_memory.telemetry import (
    InMemoryConfiguration,
    InMemoryNotifications,
    InMemoryTelemetryRepository,
)

__all__ = ["InMemoryConfiguration", "InMemoryEventStore", "InMemoryNotifications", "InMemoryTelemetryRepository"]
