"""The application service, with whatever behind its ports."""

import pytest

from spanfold.application.domain import TraceId, TraceStatus
from spanfold.application.in_memory import InMemoryConfiguration, InMemoryNotifications, InMemoryTelemetryRepository
from spanfold.application.ports import Notification, NotificationFailed
from spanfold.application.telemetry import TelemetryApplicationService
from spanfold.language.errors import CommandRefused

AT = 1_795_000_000_000_000
ENABLED = {"notification.enabled": "true"}


class World:
    def __init__(self, configuration: dict[str, str]) -> None:
        self.repository = InMemoryTelemetryRepository()
        self.notifications = InMemoryNotifications()
        self.service = TelemetryApplicationService(
            self.repository, self.notifications, InMemoryConfiguration(configuration)
        )


async def test_a_trace_is_created_and_completed() -> None:
    world = World({})
    created = await world.service.create_trace("cart", "GET /cart", AT, tags={"customer": "c-12"})
    assert await world.repository.get_trace(created.id) == created
    completed = await world.service.complete_trace(created.id, AT + 5, tags={"items": 3})
    assert await world.repository.get_trace(created.id) == completed
    assert (completed.status, completed.all_tags) == (TraceStatus.COMPLETED, {"customer": "c-12", "items": 3})
    assert world.notifications.sent == []


async def test_where_it_is_configured_the_world_is_told() -> None:
    world = World(ENABLED)
    trace = await world.service.create_trace("cart", "GET /cart", AT)
    await world.service.complete_trace(trace.id, AT + 5)
    assert [(each.kind, each.subject) for each in world.notifications.sent] == [
        ("trace.created", "cart GET /cart: started"),
        ("trace.completed", "cart GET /cart: completed"),
    ]


@pytest.mark.parametrize("value", ["false", "True", "1", ""])
async def test_anything_but_true_is_silence(value: str) -> None:
    world = World({"notification.enabled": value})
    await world.service.create_trace("cart", "GET /cart", AT)
    assert world.notifications.sent == []


@pytest.mark.parametrize("error", [NotificationFailed("the hook is away"), OSError()])
async def test_a_notification_that_fails_is_logged_and_hurts_nobody(
    error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    class Broken:
        async def notify(self, notification: Notification) -> None:
            raise error

    repository = InMemoryTelemetryRepository()
    service = TelemetryApplicationService(repository, Broken(), InMemoryConfiguration(ENABLED))
    trace = await service.create_trace("cart", "GET /cart", AT)
    assert await repository.get_trace(trace.id) == trace
    said = "".join(capsys.readouterr())
    assert "a notification failed" in said
    assert str(error) in said


async def test_what_is_illegal_is_refused_and_nothing_is_saved() -> None:
    world = World(ENABLED)
    trace = await world.service.create_trace("cart", "GET /cart", AT, trace_id="t-1")
    with pytest.raises(CommandRefused, match="its end must not be before"):
        await world.service.complete_trace("t-1", AT - 1)
    assert await world.repository.get_trace(TraceId("t-1")) == trace
    await world.service.complete_trace("t-1", AT)
    with pytest.raises(CommandRefused, match="already ended as completed at"):
        await world.service.complete_trace("t-1", AT + 1)
    with pytest.raises(CommandRefused, match="t-2 is unknown: create it first"):
        await world.service.complete_trace("t-2", AT)


async def test_a_trace_that_is_created_again_is_the_same_and_an_id_is_one_traces_own() -> None:
    world = World(ENABLED)
    await world.service.create_trace("cart", "GET /cart", AT, trace_id="t-1")
    completed = await world.service.complete_trace("t-1", AT)
    assert await world.service.create_trace("cart", "GET /cart", AT, trace_id="t-1") == completed
    assert len(world.notifications.sent) == 2
    with pytest.raises(CommandRefused, match="use another id for another trace"):
        await world.service.create_trace("shop", "GET /cart", AT, trace_id="t-1")
