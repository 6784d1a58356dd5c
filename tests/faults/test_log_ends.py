"""Whoever asks for the log's ends is answered again after a broker's restart: the worker's health depends on it."""

import asyncio
import signal

from spanfold.kafka.log_ends import LogEnds
from spanfold.kafka.topics import ensure_topics
from spanfold.language.errors import LogUnavailable
from spanfold.language.settings import Settings
from tests.support.victims import Servers
from tests.support.waiting import until

RESTARTS = 2
PLACES = [("ends.spanfold.traces", 0)]


def test_ends_are_reported_after_each_restart(victims: Servers) -> None:
    settings = Settings(kafka_bootstrap=victims.bootstrap, topic_prefix="ends.", partitions=2)
    until(lambda: ensure_topics(settings), "topics")
    ends, watched = LogEnds(settings), LogEnds(settings)

    def is_answered() -> bool:
        try:
            asyncio.run(ends.of(PLACES, committed=True, within_s=10))
            return bool(watched.now(PLACES, committed=True, within_s=10))
        except LogUnavailable:
            return False

    for _ in range(RESTARTS):
        until(is_answered, "an answer")
        victims.brokers[1].end(signal.SIGKILL)
        victims.brokers[1].start().await_ready()
    until(is_answered, "an answer after the restarts")
