"""Notifications by webhook: POSTed as JSON over HTTP."""

from types import TracebackType
from typing import Final, Self

import httpx
from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt

from spanfold.application.ports import Notification, NotificationFailed
from spanfold.language.retries import backoff

ATTEMPTS: Final = 3
FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 2.0
IDEMPOTENCY_KEY: Final = "Idempotency-Key"


class WebhookNotifications:
    """A NotificationService: each notification is POSTed to `url` as JSON {id, kind, subject, details}, with its id in the
    header Idempotency-Key. What may pass (no connection, no answer within `timeout_s`, 429, 5xx) is tried ATTEMPTS times in
    all. Use it in an `async with`, or call aclose().
    """

    def __init__(self, url: str, *, timeout_s: float = 5.0, headers: dict[str, str] | None = None) -> None:
        self._url = url
        self._client = httpx.AsyncClient(timeout=timeout_s, headers=headers)

    async def notify(self, notification: Notification) -> None:
        attempts = AsyncRetrying(
            retry=retry_if_exception(_is_transient),
            stop=stop_after_attempt(ATTEMPTS),
            wait=backoff(FIRST_PAUSE_S, LONGEST_PAUSE_S),
            reraise=True,
        )
        try:
            await attempts(self._post, notification)
        except (httpx.HTTPError, httpx.InvalidURL, TypeError) as error:
            raise NotificationFailed(
                f"{notification.kind} did not reach {self._url}: {str(error) or repr(error)}"
            ) from error

    async def _post(self, notification: Notification) -> None:
        body = {
            "id": notification.id,
            "kind": notification.kind,
            "subject": notification.subject,
            "details": dict(notification.details),
        }
        response = await self._client.post(self._url, json=body, headers={IDEMPOTENCY_KEY: notification.id})
        response.raise_for_status()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


def _is_transient(error: BaseException) -> bool:
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code == httpx.codes.TOO_MANY_REQUESTS or error.response.is_server_error
    return isinstance(error, httpx.TransportError)
