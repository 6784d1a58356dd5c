"""Appends that expect a version: one record each, answered with its place in the log."""

from typing import Final

from spanfold.language.events import DomainEvent
from spanfold.language.records import EXPECTED_VERSION
from spanfold.language.settings import Settings
from spanfold.producers.delivery import Delivery
from spanfold.producers.publisher import TelemetryPublisher

LINGER_MS: Final = 1.0
"""Whoever appends waits for the answer: hardly any waiting for company."""


class Appender(TelemetryPublisher):
    """A publisher whose records say which version they expect. What it could not deliver within `timeout_s` it gives up: it
    is not sent any more, but what the network still carries may arrive.
    """

    def __init__(self, settings: Settings, *, timeout_s: float) -> None:
        super().__init__(settings, block_timeout_s=timeout_s, linger_ms=LINGER_MS, message_timeout_s=timeout_s)

    async def append(self, event: DomainEvent, expected_version: int | None) -> Delivery:
        """Where the record lies, as TelemetryPublisher.apublish says it. Without an expected version it takes the next one."""
        record = self._record(event, None)
        if expected_version is not None:
            record.headers.append((EXPECTED_VERSION, str(expected_version).encode()))
        return await self._sent(record)
