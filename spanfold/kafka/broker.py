"""Asks Kafka whether it can take events: for /healthz."""

import threading
from typing import Final

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from spanfold.kafka.client import kafka_config
from spanfold.language.settings import Settings
from spanfold.language.topics import TRACES

ANSWER_S: Final = 2.0


class Broker:
    """Looks up the trace topic, one request at a time: concurrent callers wait."""

    def __init__(self, settings: Settings) -> None:
        """Misconfigured when no Kafka is named."""
        self._kafka = settings.kafka_bootstrap
        self._topic = TRACES.on_broker(settings.topic_prefix)
        # notice at once that a broker is back
        self._admin = AdminClient({**kafka_config(settings), "reconnect.backoff.max.ms": 500})
        self._lock = threading.Lock()

    def problems(self) -> list[str]:
        """What keeps events from getting into the log, each in a sentence; blocks for ANSWER_S at most."""
        with self._lock:
            try:
                topic = self._admin.list_topics(self._topic, timeout=ANSWER_S).topics[self._topic]
            except KafkaException as error:
                return [f"Kafka at {self._kafka} does not answer: {error.args[0].str()}"]
        if topic.error:
            return [f"topic {self._topic} can't be used: {topic.error.str()}; create it with `spanfold migrate`"]
        return []
