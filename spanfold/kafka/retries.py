"""Retries against Kafka: which errors may pass, which never will, and the pause between two attempts.

| error                                           | what it means                                  | what happens            |
|-------------------------------------------------|------------------------------------------------|-------------------------|
| SETTLING: an unknown topic, a leader that moved | brokers have not heard from the controller yet | tried again every 50 ms |
| OUT_OF_REACH, any retriable one, "fenced"       | Kafka is away, or still starting               | LogUnavailable          |
| any other                                       | Kafka refuses                                  | Misconfigured           |

LogUnavailable is tried again by spanfold.language.retries, as long as a process waits for Kafka. librdkafka retries producing,
fetching and connecting by itself; producers/connection.py and kafka/client.py set how.
"""

from collections.abc import Callable
from typing import Final, TypeVar

from confluent_kafka import KafkaError, KafkaException
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_fixed

from spanfold.language.errors import LogUnavailable, Misconfigured
from spanfold.language.settings import Settings

Result = TypeVar("Result")

SETTLING_PAUSE_S: Final = 0.05

SETTLING: Final = frozenset(
    {
        KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.LEADER_NOT_AVAILABLE, KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.FENCED_LEADER_EPOCH, KafkaError.UNKNOWN_LEADER_EPOCH, KafkaError.OFFSET_NOT_AVAILABLE,
    }
)  # fmt: skip

OUT_OF_REACH: Final = frozenset(
    {
        KafkaError._TIMED_OUT, KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError.REQUEST_TIMED_OUT,
        KafkaError.NOT_CONTROLLER, KafkaError.BROKER_NOT_AVAILABLE, KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NETWORK_EXCEPTION,
    }
)  # fmt: skip

_STARTING: Final = "fenced"
"""In the refusal to create a topic: the brokers are registered with the controller, and not up yet."""


def while_settling(timeout_s: float, work: Callable[[], Result]) -> Result:
    """What `work` returns, tried again while the brokers are settling; after `timeout_s` the last error is raised."""
    attempts = Retrying(
        retry=retry_if_exception(is_settling),
        stop=stop_after_delay(timeout_s),
        wait=wait_fixed(SETTLING_PAUSE_S),
        reraise=True,
    )
    return attempts(work)


def translated(error: KafkaException, settings: Settings) -> LogUnavailable | Misconfigured:
    """What an administrative request ended with, as spanfold's error."""
    cause: KafkaError = error.args[0]
    if cause.code() in OUT_OF_REACH or cause.retriable() or _STARTING in cause.str():
        return LogUnavailable(f"Kafka at {settings.kafka_bootstrap} did not answer: {cause.str()}")
    return Misconfigured(f"Kafka at {settings.kafka_bootstrap} refused: {cause.str()}")


def is_settling(error: BaseException) -> bool:
    """Whether the brokers have not heard from the controller yet, or the client's knowledge of leaders is out of date."""
    return isinstance(error, KafkaException) and error.args[0].code() in SETTLING
