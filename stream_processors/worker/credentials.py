"""Kafka's security as Faust takes it, from the same settings as librdkafka's (spanfold.kafka.security)."""

from typing import Any

import faust

from spanfold.kafka.security import ssl_context, uses_sasl
from spanfold.language.settings import Settings


def credentials(settings: Settings) -> Any:
    """For `broker_credentials`; None for a plain connection. Misconfigured when the settings contradict each other."""
    context = ssl_context(settings)
    if uses_sasl(settings):
        return faust.SASLCredentials(
            username=settings.kafka_sasl_username,
            password=settings.kafka_sasl_password.get_secret_value(),
            mechanism=settings.kafka_sasl_mechanism,
            ssl_context=context,
        )
    return faust.SSLCredentials(context) if context else None
