"""The connection errors that librdkafka reports: logged, and kept for the message that explains why nothing arrives."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from confluent_kafka import KafkaError

from spanfold.kafka.security import what_to_check
from spanfold.language.errors import LogUnavailable, Misconfigured, SpanfoldError
from spanfold.language.throttled_log import ThrottledLog

if TYPE_CHECKING:
    from collections.abc import Callable

    from spanfold.language.settings import Settings

RECENT_S: Final = 30.0
"""librdkafka reconnects at least every ten seconds, and reports the error again then."""

_REFUSALS: Final = frozenset({KafkaError._AUTHENTICATION, KafkaError._SSL, KafkaError.SASL_AUTHENTICATION_FAILED})
_TLS_ERROR: Final = "SSL routines"
"""A broker that rejects our certificate hangs up, and only OpenSSL reports why."""

_CUT_SHORT: Final = ("Disconnected", "disconnected", "ransport failure", "timed out")
"""In the text of a refusal: the broker went away meanwhile, and may accept this client next time."""

_UNINFORMATIVE: Final = frozenset({KafkaError._ALL_BROKERS_DOWN})


class KafkaErrorLog:
    """A client's error_cb, called by whoever polls the client."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._log = ThrottledLog("spanfold.kafka")
        self._refused: tuple[float, str] | None = None
        self._last: tuple[float, str] | None = None

    def __call__(self, error: KafkaError) -> None:
        """Log it, at most one line in ten seconds, and remember it."""
        self._log.warning("Kafka reports an error; spanfold keeps trying", reason=error.str())
        if error.code() in _REFUSALS or _TLS_ERROR in error.str():
            self._refused = (self._clock(), error.str())
        if error.code() not in _UNINFORMATIVE:
            self._last = (self._clock(), error.str())

    def check(self) -> None:
        """Misconfigured when Kafka has refused this client for good."""
        refused = self._recent(self._refused)
        if refused and not any(words in refused for words in _CUT_SHORT):
            raise self._refusal(refused)

    def explained(self, error: SpanfoldError) -> SpanfoldError:
        """The same error, or a better one: Misconfigured when Kafka refuses this client, else with the last error reported."""
        if not isinstance(error, LogUnavailable):
            return error
        if refused := self._recent(self._refused):
            return self._refusal(refused)
        if last := self._recent(self._last):
            return LogUnavailable(f"{error}; last error: {last}")
        # a listener with another protocol hangs up without an error
        return LogUnavailable(
            f"{error}; does it speak SPANFOLD_KAFKA_SECURITY_PROTOCOL={self._settings.kafka_security_protocol}?"
        )

    def _refusal(self, reason: str) -> Misconfigured:
        kafka = self._settings.kafka_bootstrap
        return Misconfigured(
            f"Kafka at {kafka} refuses this client: {what_to_check(self._settings)}. It said: {reason}"
        )

    def _recent(self, reported: tuple[float, str] | None) -> str | None:
        return reported[1] if reported and self._clock() - reported[0] < RECENT_S else None
