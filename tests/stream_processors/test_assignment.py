"""A log that is not the one that the tables were folded from is refused: at start, and whenever partitions are assigned."""

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions

from spanfold.kafka.client import kafka_config
from spanfold.kafka.topics import ensure_topics
from spanfold.language.settings import Settings
from spanfold.language.topics import TRACES
from tests.support.databases import Ledger
from tests.support.publishing import publish_all
from tests.support.stories import stories
from tests.support.topics import log_ends
from tests.support.trace_rows import shown
from tests.support.waiting import until
from tests.support.workers import Start, Worker, folded_to_the_end, positions


@pytest.fixture
def admin(stack_settings: Settings) -> AdminClient:
    return AdminClient(kafka_config(stack_settings))


@pytest.fixture
def worker(stack_settings: Settings, ledger: Ledger, start: Start) -> Worker:
    """One that has folded 100 events, and runs."""
    publish_all(stack_settings, stories(100))
    worker = start()
    folded_to_the_end(ledger, worker)
    return worker


def recreated(admin: AdminClient, settings: Settings) -> str:
    """The name of the topic of traces, which another one now has."""
    name = TRACES.on_broker(settings.topic_prefix)
    admin.delete_topics([name])[name].result()
    until(lambda: name not in admin.list_topics(timeout=10).topics, "the topic's end")
    ensure_topics(settings)
    return name


def refused(worker: Worker, words: str) -> None:
    until(lambda: worker.process.poll() is not None, "the worker's end", worker.output)
    assert worker.process.returncode == 3, worker.output()
    assert words in worker.output().splitlines()[-1], worker.output()


def test_a_checkpoint_beyond_the_logs_end(stack_settings: Settings, ledger: Ledger, start: Start) -> None:
    publish_all(stack_settings, stories(100))
    ends = log_ends(stack_settings)
    ledger.execute(
        "UPDATE spanfold_core.checkpoints SET next_offset = 1000 WHERE topic = 'spanfold.traces' AND partition = 2"
    )
    refused(start(), f"/2 holds offsets 0 to {ends[2]}, the tables stand at 1000: the log has lost records")
    assert positions(ledger)[2] == 1000


def test_a_checkpoint_before_the_logs_begin(
    stack_settings: Settings, ledger: Ledger, start: Start, admin: AdminClient
) -> None:
    publish_all(stack_settings, stories(100))
    cut = TopicPartition(TRACES.on_broker(stack_settings.topic_prefix), 2, 5)
    admin.delete_records([cut])[cut].result()
    refused(
        start(),
        f"/2 holds offsets 5 to {log_ends(stack_settings)[2]}, the tables stand at 0: the log has lost records",
    )
    assert set(positions(ledger).values()) == {0}


def test_a_topic_that_was_made_again_before_the_start(
    stack_settings: Settings, ledger: Ledger, start: Start, admin: AdminClient, worker: Worker
) -> None:
    assert worker.stop() == 0
    name, before = recreated(admin, stack_settings), positions(ledger)
    refused(start(), f"{name} is not the topic that these tables were folded from: broker_topic_id is ")
    assert positions(ledger) == before


def test_a_topic_that_was_made_again_under_a_running_worker(
    stack_settings: Settings, ledger: Ledger, admin: AdminClient, worker: Worker
) -> None:
    before = shown(ledger), positions(ledger)
    name = recreated(admin, stack_settings)
    publish_all(stack_settings, stories(1000))
    refused(worker, f"{name} was deleted and recreated")
    assert (shown(ledger), positions(ledger)) == before


def test_a_topic_that_got_more_partitions_under_a_running_worker(
    stack_settings: Settings, ledger: Ledger, admin: AdminClient, worker: Worker
) -> None:
    name, before = TRACES.on_broker(stack_settings.topic_prefix), positions(ledger)
    admin.create_partitions([NewPartitions(name, stack_settings.partitions + 2)])[name].result()
    refused(worker, f"{name} has 6 partitions, it had 4: keys now map to other partitions")
    assert positions(ledger) == before
