"""What every NotificationService does. A subclass gives the fixtures `notifications` and `told`, which returns what the outside
world has been told so far.
"""

from collections.abc import Callable, Sequence

from spanfold.application.ports import Notification, NotificationService

COMPLETED = Notification(
    id="trace.completed/t-1",
    kind="trace.completed",
    subject="cart GET /cart: completed",
    details={"trace_id": "t-1", "end": 1_795_000_000_000_000, "status": "completed"},
)


class NotificationServiceContract:
    async def test_the_world_is_told(
        self, notifications: NotificationService, told: Callable[[], Sequence[Notification]]
    ) -> None:
        await notifications.notify(COMPLETED)
        assert list(told()) == [COMPLETED]

    async def test_each_notification_has_its_own_id(
        self, notifications: NotificationService, told: Callable[[], Sequence[Notification]]
    ) -> None:
        other = Notification(id="trace.created/t-1", kind="trace.created", subject="cart GET /cart: started")
        await notifications.notify(COMPLETED)
        await notifications.notify(other)
        assert [each.id for each in told()] == [COMPLETED.id, other.id]
