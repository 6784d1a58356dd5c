"""The adapters without a server pass the contract suites, and the store in memory judges as the log's readers do."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spanfold.adapters.configuration import EnvironmentConfiguration
from spanfold.application.event_store import Conflict
from spanfold.application.in_memory import (
    InMemoryConfiguration,
    InMemoryEventStore,
    InMemoryNotifications,
    InMemoryTelemetryRepository,
)
from spanfold.application.ports import ConfigurationService, Notification, NotificationService
from spanfold.language.ids import event_id
from tests.contracts.configuration import ConfigurationServiceContract
from tests.contracts.event_store import EventStoreContract, registered
from tests.contracts.notifications import NotificationServiceContract
from tests.contracts.telemetry_repository import TelemetryRepositoryContract

VALUES = {"notification.enabled": "true", "notification.url": "http://hooks/7"}


class TestInMemoryEventStore(EventStoreContract):
    @pytest.fixture
    def store(self) -> InMemoryEventStore:
        return InMemoryEventStore()


class TestInMemoryTelemetryRepository(TelemetryRepositoryContract):
    @pytest.fixture
    def repository(self) -> InMemoryTelemetryRepository:
        return InMemoryTelemetryRepository()


class TestInMemoryConfiguration(ConfigurationServiceContract):
    @pytest.fixture
    def configuration(self) -> ConfigurationService:
        return InMemoryConfiguration(VALUES)


class TestEnvironmentConfiguration(ConfigurationServiceContract):
    @pytest.fixture
    def configuration(self, monkeypatch: pytest.MonkeyPatch) -> ConfigurationService:
        monkeypatch.setenv("SPANFOLD_NOTIFICATION_ENABLED", "true")
        monkeypatch.setenv("SPANFOLD_NOTIFICATION_URL", "http://hooks/7")
        monkeypatch.setenv("SPANFOLD_NOTIFICATION_EMPTY", "")
        return EnvironmentConfiguration()


class TestInMemoryNotifications(NotificationServiceContract):
    @pytest.fixture
    def notifications(self) -> NotificationService:
        return InMemoryNotifications()

    @pytest.fixture
    def told(self, notifications: InMemoryNotifications) -> Callable[[], Sequence[Notification]]:
        return lambda: notifications.sent


Log = list[tuple[str, int | None, int]]
"""Appends: aggregate, expected version, number of the event."""

LOGS = st.lists(st.tuples(st.sampled_from("ab"), st.none() | st.integers(0, 3), st.integers(0, 5)), max_size=20)


def told_by_the_rules(log: Log) -> list[int | str]:
    """The version, or `conflict`, that each append is answered with, by the words of docs/adr/0007."""
    heads: dict[str, int] = {}
    first: dict[int, int | str] = {}
    for key, expected, event in log:
        if event not in first:
            head = heads.get(key, 0)
            first[event] = "conflict" if expected not in (None, head) else head + 1
            heads[key] = head if first[event] == "conflict" else head + 1
    return [first[event] for _, _, event in log]


@given(LOGS)
async def test_any_appends_are_judged_as_the_rules_say(log: Log) -> None:
    store, told = InMemoryEventStore(), list[int | str]()
    for key, expected, event in log:
        try:
            named = replace(registered(key, at=1), event_id=event_id(1, str(event)))
            told.append((await store.append_event(named, expected)).version)
        except Conflict:
            told.append("conflict")
    assert told == told_by_the_rules(log)
