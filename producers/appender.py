"""Appends that expect a version: one record for each, answered with its position in the log."""

from typing import Final

from spanfold.language.events import DomainEvent
from spanfold.language.records import EXPECTED_VERSION
from spanfold.language.settings import Settings
from spanfold.producers.delivery import Delivery
from spanfold.producers.publisher import TelemetryPublisher

LINGER_MS: Final = 1.0
"""The caller waits for the answer, so a record hardly waits for others to share its batch."""


class Appender(TelemetryPublisher):
    """A publisher whose records carry the version that they expect. A record that was not delivered within `timeout_s` is given
    up: it is not sent again, but one that is already on the network may still arrive.
    """

    def __init__(self, settings: Settings, *, timeout_s: float) -> None:
        super().__init__(settings, block_timeout_s=timeout_s, linger_ms=LINGER_MS, message_timeout_s=timeout_s)

    async def append(self, event: DomainEvent, expected_version: int | None) -> Delivery:
        """The record's position in the log; raises as TelemetryPublisher.apublish. Without an expected version it takes
        the next one.
        """
        record = self._record(event, None)
        if expected_version is not None:
            record.headers.append((EXPECTED_VERSION, str(expected_version).encode()))
        return await self._sent(record)
