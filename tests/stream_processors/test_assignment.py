"""A log that is not the one that the tables were folded from is refused, and one that has lost records suspends its topic: at
start, and whenever partitions are assigned.
"""

import psycopg
import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions

from spanfold.kafka.client import kafka_config
from spanfold.kafka.topics import ensure_topics
from spanfold.language.settings import Settings
from spanfold.language.topics import TRACES
from tests.support.commands import command, json_of
from tests.support.databases import Ledger
from tests.support.publishing import publish_all, publish_metric
from tests.support.stories import stories
from tests.support.topics import log_ends
from tests.support.trace_rows import shown
from tests.support.waiting import until
from tests.support.workers import SNAPSHOTS, Start, Worker, folded_to_the_end, positions


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


def suspended(ledger: Ledger, worker: Worker, words: str) -> None:
    because = "SELECT suspended_because FROM spanfold.suspensions WHERE name = 'spanfold.traces'"
    until(lambda: ledger.execute(because).fetchone(), "the suspension", worker.output)
    row = ledger.execute(because).fetchone()
    assert row
    assert words in row[0]
    assert worker.process.poll() is None


def metric_is_folded(settings: Settings, ledger: Ledger, worker: Worker) -> None:
    """Other topics go on."""
    publish_metric(settings)
    until(lambda: ledger.execute("SELECT FROM spanfold.metrics").fetchall(), "the metric", worker.output)


def test_a_checkpoint_beyond_the_logs_end(stack_settings: Settings, ledger: Ledger, start: Start) -> None:
    publish_all(stack_settings, stories(100))
    ends = log_ends(stack_settings)
    ledger.execute(
        "UPDATE spanfold_core.checkpoints SET next_offset = 1000 WHERE topic = 'spanfold.traces' AND partition = 2"
    )
    worker = start()
    suspended(ledger, worker, f"/2 holds offsets 0 to {ends[2]}, the tables stand at 1000: the log has lost records")
    metric_is_folded(stack_settings, ledger, worker)
    refusal = command(stack_settings, "resume", TRACES.name, "--accept-loss")
    assert refusal.returncode == 3
    assert "the log would give these offsets to other records" in refusal.stderr
    assert positions(ledger)[2] == 1000


def test_a_checkpoint_before_the_logs_begin(
    stack_settings: Settings, ledger: Ledger, start: Start, admin: AdminClient
) -> None:
    events = stories(100)
    publish_all(stack_settings, events)
    cut = TopicPartition(TRACES.on_broker(stack_settings.topic_prefix), 2, 5)
    admin.delete_records([cut])[cut].result()
    worker, ends = start(), log_ends(stack_settings)
    suspended(ledger, worker, f"/2 holds offsets 5 to {ends[2]}, the tables stand at 0: the log has lost records")
    metric_is_folded(stack_settings, ledger, worker)
    assert positions(ledger)[2] == 0
    refusal = command(stack_settings, "resume", TRACES.name)
    assert refusal.returncode == 3
    assert "spanfold.traces/2 from 0 to 4 for journal" in refusal.stderr
    done = json_of(stack_settings, "resume", TRACES.name, "--accept-loss")
    assert [(gap["partition"], gap["from_offset"], gap["to_offset"]) for gap in done["gaps"]] == [(2, 0, 5)] * 2
    folded_to_the_end(ledger, worker)
    assert ledger.execute("SELECT count(*) FROM spanfold.verdicts").fetchone() == (len(events) - 5,)
    shown_gaps = [(gap["projection"], gap["to_offset"]) for gap in json_of(stack_settings, "status")["log_gaps"]]
    assert shown_gaps == [("journal", 5), ("traces", 5)]
    assert worker.stop() == 0


def test_a_log_that_lacks_what_states_need_ends_the_snapshot_worker_alone(
    stack_settings: Settings, ledger: Ledger, admin: AdminClient, worker: Worker, start: Start
) -> None:
    """A fold version that begins after the log was pruned is one."""
    cut = TopicPartition(TRACES.on_broker(stack_settings.topic_prefix), 2, 5)
    admin.delete_records([cut])[cut].result()
    states = start(program=SNAPSHOTS)
    until(lambda: states.process.poll() is not None, "the snapshot worker's end", states.output)
    assert states.process.returncode == 3, states.output()
    assert "spanfold resume spanfold.traces --accept-loss" in states.output().splitlines()[-1]
    publish_all(stack_settings, stories(200)[100:])
    folded_to_the_end(ledger, worker)
    assert json_of(stack_settings, "resume", TRACES.name, "--accept-loss")["gaps"]
    states = start(program=SNAPSHOTS)
    ends = log_ends(stack_settings)
    until(lambda: positions(ledger, "snapshots") == ends, "the states", states.output)
    assert states.stop() == 0


def test_a_log_that_is_cut_under_a_running_worker(
    stack_settings: Settings, ledger: Ledger, admin: AdminClient, start: Start
) -> None:
    """What it needs next is gone before it is fetched."""
    worker = start(batch_records=10, fetch_bytes=10_000)
    publish_all(stack_settings, stories(100))
    folded_to_the_end(ledger, worker)
    with psycopg.connect(str(stack_settings.postgres_dsn)) as holder:
        holder.execute("SELECT FROM spanfold_core.checkpoints WHERE topic = 'spanfold.traces' FOR UPDATE")
        for _ in range(20):  # a record batch each: the worker fetches whole ones, and a few ahead
            publish_all(stack_settings, stories(200))
        end = log_ends(stack_settings)[2]
        cut = TopicPartition(TRACES.on_broker(stack_settings.topic_prefix), 2, end)
        admin.delete_records([cut])[cut].result()
    suspended(ledger, worker, f"/2 holds offsets {end} to {end}, the tables stand at ")
    metric_is_folded(stack_settings, ledger, worker)
    assert json_of(stack_settings, "resume", TRACES.name, "--accept-loss")["gaps"]
    folded_to_the_end(ledger, worker)
    assert worker.stop() == 0


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
