"""What librdkafka says of its connections: logged, and remembered for whoever has to explain why nothing arrives."""

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
"""librdkafka tries again every ten seconds at most, and then says again what is wrong."""

_REFUSALS: Final = frozenset({KafkaError._AUTHENTICATION, KafkaError._SSL, KafkaError.SASL_AUTHENTICATION_FAILED})
_OF_TLS: Final = "SSL routines"
"""A broker that doesn't like our certificate hangs up, and OpenSSL alone says why."""

_CUT_SHORT: Final = ("Disconnected", "disconnected", "ransport failure", "timed out")
"""In a refusal's text: the broker went away in the middle of it, and may think otherwise next time."""

_SAYS_NOTHING: Final = frozenset({KafkaError._ALL_BROKERS_DOWN})


class Trouble:
    """A client's error_cb. It is called by whoever polls the client."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._log = ThrottledLog("spanfold.kafka")
        self._refused: tuple[float, str] | None = None
        self._last: tuple[float, str] | None = None

    def __call__(self, error: KafkaError) -> None:
        """Log it, at most one line in ten seconds, and remember it."""
        self._log.warning("Kafka is in trouble; spanfold keeps trying", reason=error.str())
        if error.code() in _REFUSALS or _OF_TLS in error.str():
            self._refused = (self._clock(), error.str())
        if error.code() not in _SAYS_NOTHING:
            self._last = (self._clock(), error.str())

    def check(self) -> None:
        """Misconfigured when Kafka has refused this client for good: it will not think otherwise next time."""
        refused = self._recent(self._refused)
        if refused and not any(words in refused for words in _CUT_SHORT):
            raise self._refusal(refused)

    def explained(self, error: SpanfoldError) -> SpanfoldError:
        """The same error, or a better one: Misconfigured when Kafka refuses this client, else with what was last heard."""
        if not isinstance(error, LogUnavailable):
            return error
        if refused := self._recent(self._refused):
            return self._refusal(refused)
        if last := self._recent(self._last):
            return LogUnavailable(f"{error}; last heard: {last}")
        # a listener of another kind than ours hangs up without a word
        return LogUnavailable(
            f"{error}; does it speak SPANFOLD_KAFKA_SECURITY_PROTOCOL={self._settings.kafka_security_protocol}?"
        )

    def _refusal(self, said: str) -> Misconfigured:
        kafka = self._settings.kafka_bootstrap
        return Misconfigured(f"Kafka at {kafka} refuses this client: {what_to_check(self._settings)}. It said: {said}")

    def _recent(self, heard: tuple[float, str] | None) -> str | None:
        return heard[1] if heard and self._clock() - heard[0] < RECENT_S else None
