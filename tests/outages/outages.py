"""The outages. Each makes its wound, waits until status shows what it must, heals it, and waits until all is well.

An outage returns the names of the processes that it ends itself; every other process must still be the same afterwards.
"""

import os
import signal
import time
from collections.abc import Callable, Collection
from typing import Final

from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from spanfold.kafka.client import kafka_config
from spanfold.language.records import headers_of, key_of
from spanfold.language.topics import TRACES
from tests.outages.load import Load
from tests.outages.poison import NAME, POISON
from tests.outages.scene import Scene
from tests.support.hostile_topic import large_header, of_one_partition, produce_batch, with_neighbours
from tests.support.stories import raw_producer, stories
from tests.support.waiting import until

NOBODY: Final[Collection[str]] = ()
WORKERS: Final = ("projector-1", "projector-2", "snapshots")


def read_only(scene: Scene, load: Load) -> Collection[str]:
    """Postgres is read-only for 30 s, and every connection is cut: a failover to a standby that is not promoted yet."""
    with scene.ledger() as ledger:
        ledger.execute("ALTER DATABASE spanfold SET default_transaction_read_only = on")
        ledger.execute(CUT)
    time.sleep(30)
    with scene.ledger() as ledger:
        ledger.execute("SET default_transaction_read_only = off")
        ledger.execute("ALTER DATABASE spanfold RESET default_transaction_read_only")
        ledger.execute(CUT)
    return NOBODY


CUT: Final = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'spanfold' AND pid <> pg_backend_pid()"
)


def poison_fold(scene: Scene, load: Load) -> Collection[str]:
    """Somebody's own projection fails on a span; its repair is installed, the workers are restarted, it is resumed."""
    assert load.send(POISON) == 200
    problem = scene.until_problem(f"projection {NAME} is suspended")
    assert "ValueError: nobody thought of this operation (poison.py:" in problem, problem
    scene.until_folded(load)
    (scene.packages / "repaired").touch()
    for command in (("workers", "restart"), ("resume", NAME)):
        done = scene.shell(*command)
        assert done.returncode == 0, done.stderr
    same = f"SELECT (SELECT sum(spans) FROM spanfold.{NAME}) - (SELECT count(*) FROM spanfold.spans)"
    until(lambda: scene.count(same) == 0, "the counts of both projections", lambda: scene.count(same))
    return WORKERS


def large_headers(scene: Scene, load: Load) -> Collection[str]:
    """A record whose one header has 270 MB, with good records before and behind it in its batch."""
    partition, good = of_one_partition(stories(100), scene.settings.partitions)
    malformed = "SELECT count(*) FROM spanfold.verdicts WHERE verdict = 'malformed'"
    before, traces = scene.count(malformed), sorted({event.aggregate_id for event in good})
    produce_batch(scene.settings, partition, with_neighbours(good, [large_header(key_of(good[0]))]))
    until(lambda: scene.count(malformed) == before + 1, "the verdict", within_s=240)
    names = "', '".join(traces)
    there = f"SELECT count(*) FROM spanfold.traces WHERE trace_id IN ('{names}')"
    until(lambda: scene.count(there) == len(traces), "its neighbours", lambda: scene.count(there))
    return NOBODY


def unknown_schema(scene: Scene, load: Load) -> Collection[str]:
    """60,000 records of a schema that nobody here knows."""
    producer, produce = raw_producer(scene.settings)
    for number, event in enumerate(stories(60_000)):
        produce(b"\0\0\0\0\7 another schema", key_of(event), headers_of(event))
        if number % 1000 == 0:
            producer.poll(0)
    assert producer.flush(60) == 0
    problem = scene.until_problem("topic spanfold.traces is suspended")
    assert "unknown_schema" in problem, problem
    done = scene.shell("resume", TRACES.name, "--park")
    assert done.returncode == 0, done.stderr
    parked = "SELECT count(*) FROM spanfold.parked_records WHERE reason = 'unknown_schema'"
    until(lambda: scene.count(parked) == 60_000, "all of them parked", lambda: scene.count(parked), within_s=240)
    return NOBODY


def kafka_killed(scene: Scene, load: Load) -> Collection[str]:
    """kill -9 of Kafka."""
    before = scene.pids()["kafka"]
    os.kill(before, signal.SIGKILL)
    until(lambda: scene.pids()["kafka"] != before, "another Kafka")
    return ("kafka",)


def full_disk(scene: Scene, load: Load) -> Collection[str]:
    """The file system of the home is full for 20 s."""
    assert scene.disk is not None
    filler = scene.disk / "filler"
    with filler.open("wb", buffering=0) as file:
        chunk, until_s = bytes(1 << 20), time.monotonic() + 20
        while time.monotonic() < until_s:
            try:
                file.write(chunk)
            except OSError:
                time.sleep(0.2)
    filler.unlink()
    return ("kafka", "postgres")


def lost_log(scene: Scene, load: Load) -> Collection[str]:
    """Records of a partition are deleted before they are folded."""
    settings = scene.settings
    with scene.ledger() as ledger, ledger.transaction():
        ledger.execute("SELECT FROM spanfold_core.checkpoints WHERE topic = 'spanfold.traces' FOR UPDATE")
        begun = sum(end for _, end in scene.bounds().values())
        until(lambda: sum(end for _, end in scene.bounds().values()) > begun + 2000, "records behind", within_s=240)
        cut = TopicPartition(TRACES.on_broker(settings.topic_prefix), 0, scene.bounds()[0][1])
        admin = AdminClient(kafka_config(settings))
        admin.delete_records([cut])[cut].result(30)
    scene.until_problem("the log has lost records")
    refused = scene.shell("resume", TRACES.name)
    assert refused.returncode == 3, refused
    assert "--accept-loss" in refused.stderr, refused.stderr
    done = scene.shell.json("resume", TRACES.name, "--accept-loss")
    (gap,) = (each for each in done["gaps"] if each["projection"] == "journal")
    until(lambda: scene.status()["log_gaps"], "the gap in status")
    lost = gap["to_offset"] - gap["from_offset"]
    caught_up = load.acknowledged.copy()
    until(lambda: len(caught_up - scene.rows()) <= lost, "all but the lost records", within_s=240)
    load.acknowledged -= caught_up - scene.rows()
    return NOBODY


OUTAGES: Final[dict[str, Callable[[Scene, Load], Collection[str]]]] = {
    outage.__name__: outage
    for outage in (read_only, poison_fold, large_headers, unknown_schema, kafka_killed, full_disk, lost_log)
}
