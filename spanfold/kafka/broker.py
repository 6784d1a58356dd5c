"""Whether Kafka is there, by its own word."""

import threading
from typing import Final

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from spanfold.kafka.client import kafka_config
from spanfold.language.settings import Settings
from spanfold.language.topics import TRACES

ANSWER_S: Final = 2.0


class Broker:
    """Asks for the trace topic. One question at a time: the others of that moment wait for it."""

    def __init__(self, settings: Settings) -> None:
        """Misconfigured when no Kafka is named."""
        self._kafka = settings.kafka_bootstrap
        self._topic = TRACES.on_broker(settings.topic_prefix)
        # a broker that is back is to be seen at once
        self._admin = AdminClient({**kafka_config(settings), "reconnect.backoff.max.ms": 500})
        self._lock = threading.Lock()

    def problems(self) -> list[str]:
        """What keeps spans from getting into the log, each in a sentence; blocks for ANSWER_S at most."""
        with self._lock:
            try:
                found = self._admin.list_topics(self._topic, timeout=ANSWER_S).topics[self._topic]
            except KafkaException as error:
                return [f"Kafka at {self._kafka} does not answer: {error.args[0].str()}"]
        if found.error:
            return [
                f"topic {self._topic} can't be used: {found.error.str()}: `spanfold up` or a worker's start creates it"
            ]
        return []
