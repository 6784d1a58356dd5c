"""Notifications over HTTP, to a server that keeps what it is told."""

import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from spanfold.adapters.webhook_notifications import ATTEMPTS, IDEMPOTENCY_KEY, WebhookNotifications
from spanfold.application.ports import Notification, NotificationFailed
from tests.contracts.notifications import COMPLETED, NotificationServiceContract


class Hook(ThreadingHTTPServer):
    """Answers with the next of `answers` as status, 204 when they have run out; keeps what came with 204."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Receiver)
        self.answers: list[int] = []
        self.kept: list[Notification] = []
        self.keys: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hook"


class Receiver(BaseHTTPRequestHandler):
    server: Hook

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        status = self.server.answers.pop(0) if self.server.answers else 204
        self.server.keys.append(self.headers[IDEMPOTENCY_KEY])
        if status == 204:
            self.server.kept.append(Notification(**body))
        self.send_response(status)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Silent."""


@pytest.fixture
def hook() -> Iterator[Hook]:
    with Hook() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
async def notifications(hook: Hook) -> AsyncIterator[WebhookNotifications]:
    async with WebhookNotifications(hook.url) as made:
        yield made


class TestWebhook(NotificationServiceContract):
    @pytest.fixture
    def told(self, hook: Hook) -> Callable[[], Sequence[Notification]]:
        return lambda: hook.kept


async def test_what_may_pass_is_tried_again_under_the_same_key(hook: Hook, notifications: WebhookNotifications) -> None:
    hook.answers = [503, 429]
    await notifications.notify(COMPLETED)
    assert hook.kept == [COMPLETED]
    assert hook.keys == [COMPLETED.id] * 3


@pytest.mark.parametrize(("answers", "tried"), [([500] * 9, ATTEMPTS), ([400], 1), ([302], 1)])
async def test_what_does_not_pass_is_said(
    hook: Hook, notifications: WebhookNotifications, answers: list[int], tried: int
) -> None:
    hook.answers = answers
    with pytest.raises(NotificationFailed, match=rf"trace.completed did not reach {hook.url}: .*{hook.answers[0]}"):
        await notifications.notify(COMPLETED)
    assert (len(hook.keys), hook.kept) == (tried, [])


async def test_a_hook_that_is_away_is_said() -> None:
    async with WebhookNotifications("http://127.0.0.1:1/hook") as notifications:
        with pytest.raises(NotificationFailed, match=r"127\.0\.0\.1:1"):
            await notifications.notify(COMPLETED)
