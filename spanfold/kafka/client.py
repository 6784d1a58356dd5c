"""The configuration that every librdkafka client of spanfold shares."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from spanfold.kafka.kafka_errors import KafkaErrorLog
from spanfold.kafka.security import librdkafka_security
from spanfold.language.errors import Misconfigured

if TYPE_CHECKING:
    from spanfold.language.settings import Settings


def kafka_config(settings: Settings) -> dict[str, Any]:
    """How librdkafka reaches Kafka. Misconfigured when no Kafka is named, or the settings of its security contradict each
    other.

    Connection errors go to the logger `spanfold.kafka`, at most one line in ten seconds for each client.
    """
    if not settings.kafka_bootstrap:
        raise Misconfigured("no Kafka is named: set SPANFOLD_KAFKA_BOOTSTRAP to host:port, or run `spanfold up`")
    return {
        "bootstrap.servers": settings.kafka_bootstrap,
        "client.id": "spanfold",
        "log_level": 2,  # librdkafka's own lines come several a second while Kafka is away, and land on standard error
        "error_cb": KafkaErrorLog(settings),
        **librdkafka_security(settings),
    }
