"""What a worker says of itself: when it is well, what it counts, and when it refuses to go on."""

import re
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from spanfold.language.records import headers_of, key_of
from spanfold.language.settings import Settings
from spanfold.language.topics import TRACES
from spanfold.stream_processors.worker.health import (
    KAFKA,
    POSTGRES,
    Limits,
    Observations,
    answered,
    asked,
    nothing_seen,
    seen,
    unanswered,
    unwell,
)
from tests.support.commands import command, json_of
from tests.support.databases import Ledger
from tests.support.publishing import publish_all, publish_metric
from tests.support.stories import raw_producer, stories
from tests.support.topics import log_ends
from tests.support.waiting import until
from tests.support.workers import Start, folded_to_the_end, health_of, metrics_of, page, positions, url_of

Story = Callable[[Observations], Observations]

LIMITS = Limits(stalled_s=60, unowned_s=300)
P0, P1 = ("spanfold.traces", 0), ("spanfold.traces", 1)


# The decision


def looks(*looks: tuple[float, dict[Any, tuple[int, int]]]) -> Observations:
    """What is known after these looks: when, and for each owned partition the log's end and the checkpoint."""
    known = nothing_seen(0)
    for now, partitions in looks:
        ends, at = (
            {each: end for each, (end, _) in partitions.items()},
            {each: p for each, (_, p) in partitions.items()},
        )
        known = seen(known, ends, at, now)
    return known


STALLED = "spanfold.traces/0 has not moved from offset 5 for 61 s, and is 45 records behind the log"


@pytest.mark.parametrize(
    ("known", "now", "problems"),
    [
        pytest.param(nothing_seen(0), 59, [], id="just begun"),
        pytest.param(looks((0, {P0: (9, 9)}), (99, {P0: (9, 9)})), 99, [], id="idle"),
        pytest.param(looks((0, {P0: (9, 5)}), (60, {P0: (50, 5)})), 60, [], id="not yet for long"),
        pytest.param(looks((0, {P0: (9, 5)}), (61, {P0: (50, 5)})), 61, [STALLED], id="stalled while the log grows"),
        pytest.param(looks((0, {P0: (50, 5)}), (61, {P0: (50, 5)})), 61, [STALLED], id="stalled, nothing new"),
        pytest.param(looks((0, {P0: (50, 5)}), (40, {P0: (90, 6)}), (99, {P0: (90, 6)})), 99, [], id="slow, moving"),
        pytest.param(
            looks((0, {P0: (50, 5), P1: (9, 9)}), (61, {P0: (50, 5), P1: (99, 50)})), 61, [STALLED], id="one of two"
        ),
        pytest.param(looks((0, {P0: (50, 5)}), (61, {P0: (50, 5)}), (62, {P0: (50, 8)})), 62, [], id="moves again"),
        pytest.param(looks((0, {P0: (50, 5)}), (61, {P1: (50, 5)})), 61, [], id="a stalled one was given away"),
        pytest.param(looks((0, {P0: (9, 9)}), (90, {P0: (10, 9)})), 90, [], id="idle for long, then one record"),
        pytest.param(looks((299, {})), 300, [], id="owns nothing yet"),
        pytest.param(looks((299, {})), 301, ["it has owned no partition for 301 s"], id="owns nothing"),
        pytest.param(looks((0, {P0: (9, 9)}), (100, {}), (399, {})), 399, [], id="owns nothing since lately"),
        pytest.param(looks((9, {P0: (9, 9)})), 70, ["nobody has asked Kafka and Postgres for 61 s"], id="no look"),
        pytest.param(
            unanswered(asked(looks((9, {P0: (9, 9)})), POSTGRES, 10), POSTGRES, "refused", 69),
            71, ["Postgres has not answered for 61 s: refused"], id="Postgres refuses",
        ),
        pytest.param(
            asked(looks((9, {P0: (9, 9)})), POSTGRES, 10),
            71, ["Postgres has not answered for 61 s: no answer yet"], id="Postgres hangs",
        ),
        pytest.param(asked(looks((9, {P0: (9, 9)})), POSTGRES, 10), 69, [], id="Postgres hangs for a moment"),
        pytest.param(
            asked(unanswered(asked(nothing_seen(0), KAFKA, 1), KAFKA, "timed out", 6), KAFKA, 60),
            62, ["Kafka has not answered for 61 s: timed out"], id="Kafka is away",
        ),
        pytest.param(
            answered(asked(unanswered(asked(nothing_seen(0), KAFKA, 1), KAFKA, "timed out", 6), KAFKA, 60), KAFKA, 61),
            62, [], id="Kafka is back",
        ),
    ],
)  # fmt: skip
def test_a_worker_is_well_until_it_has_had_time_enough(known: Observations, now: float, problems: list[str]) -> None:
    assert unwell(known, now, LIMITS) == problems


def test_more_than_one_thing_may_be_wrong() -> None:
    known = replace(looks((0, {P0: (50, 5)}), (61, {P0: (50, 5)})), unowned_since=-300)
    assert [each.split()[0] for each in unwell(unanswered(known, KAFKA, "away", 0), 61, LIMITS)] == [
        "Kafka",
        "it",
        "spanfold.traces/0",
    ]


# Workers


def test_a_worker_counts_what_it_does(stack_settings: Settings, ledger: Ledger, start: Start) -> None:
    events = stories(200)
    publish_all(stack_settings, events)
    publish_all(stack_settings, events[:10])
    producer, produce = raw_producer(stack_settings)
    unseen = stories(205)[200]
    produce(b"?", key_of(unseen), headers_of(unseen))
    assert producer.flush(30) == 0
    worker = start(watch_interval_s=0.1)
    folded_to_the_end(ledger, worker)
    lags = [("spanfold_lag_records", str(number), "spanfold.traces") for number in range(stack_settings.partitions)]
    until(lambda: all(metrics_of(worker).get(each) == 0 for each in lags), "no lag", lambda: metrics_of(worker))
    shown, topic = metrics_of(worker), "spanfold.traces"
    assert shown["spanfold_events_folded_total", topic] == 200
    assert shown["spanfold_records_rejected_total", topic, "duplicate"] == 10
    assert shown["spanfold_records_parked_total", "unreadable", topic] == 1
    assert shown["spanfold_batch_records_sum", topic] == 211
    assert (
        shown["spanfold_batches_committed_total", topic] == shown["spanfold_commit_duration_seconds_count", topic] >= 1
    )
    assert shown["spanfold_refolds_total", topic] == shown["spanfold_batches_fenced_total", topic] == 0
    assert shown["spanfold_last_progress_timestamp_seconds",] > events[0].occurred_at / 1e6
    assert shown["spanfold_partitions_owned",] >= stack_settings.partitions
    assert page(worker, "/else")[0] == 404
    assert worker.stop() == 0


def test_an_idle_worker_is_well_and_one_that_cannot_commit_is_not(
    stack_settings: Settings, ledger: Ledger, start: Start
) -> None:
    publish_all(stack_settings, stories(50))
    worker = start(watch_interval_s=0.1, stalled_after_s=2)
    folded_to_the_end(ledger, worker)
    with psycopg.connect(str(stack_settings.postgres_dsn)) as blocking:
        blocking.execute("SELECT FROM spanfold_core.checkpoints FOR UPDATE")
        blocking.execute("SELECT pg_sleep(3)")
        assert health_of(worker) == (200, [])
        publish_all(stack_settings, stories(100)[50:])
        until(lambda: health_of(worker)[0] == 503, "an unwell worker", worker.output)
        problems = health_of(worker)[1]
        assert all("records behind the log" in each for each in problems)
        behind = {at: end for at, end in log_ends(stack_settings).items() if end > positions(ledger)[at]}
        assert {each.partition(" ")[0] for each in problems} <= {f"spanfold.traces/{at}" for at in behind}
    until(lambda: health_of(worker) == (200, []), "a worker that is well again", worker.output)
    folded_to_the_end(ledger, worker)
    assert worker.stop() == 0


@pytest.fixture
def close_to_others(servers: Any, ledger: Ledger) -> Callable[[bool], None]:
    """Let Postgres refuse new connections to this test's database, and end the worker's; or let them in again."""

    def close(closed: bool) -> None:
        with psycopg.connect(servers.postgres_dsn, autocommit=True) as elsewhere:
            allowed = "false" if closed else "true"
            elsewhere.execute(f"ALTER DATABASE {ledger.info.dbname} WITH ALLOW_CONNECTIONS {allowed}".encode())
            ledger.execute(END_OTHERS.encode())

    return close


END_OTHERS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
"""


def test_a_worker_whose_postgres_is_away_says_so_and_recovers(
    stack_settings: Settings, ledger: Ledger, start: Start, close_to_others: Callable[[bool], None]
) -> None:
    publish_all(stack_settings, stories(50))
    worker = start(watch_interval_s=0.1, stalled_after_s=2)
    folded_to_the_end(ledger, worker)
    close_to_others(True)
    publish_all(stack_settings, stories(100)[50:])
    refused = re.compile(r"Postgres has not answered for \d+ s: .*not currently accepting connections")
    until(
        lambda: any(map(refused.match, health_of(worker)[1])),
        "what is wrong",
        lambda: (health_of(worker), worker.output()),
    )
    assert health_of(worker)[0] == 503
    assert metrics_of(worker)["spanfold_postgres_retries_total",] > 0
    assert not [each for each in metrics_of(worker) if each[0] == "spanfold_lag_records"]
    close_to_others(False)
    until(lambda: health_of(worker) == (200, []), "a worker that is well again", worker.output)
    folded_to_the_end(ledger, worker)
    assert worker.stop() == 0


IMPATIENT = """
import faust
from spanfold.bootstrap import run_projector
from spanfold.language.settings import Settings

class Impatient(faust.App):
    def __init__(self, *args, **options):
        super().__init__(*args, **options, broker_request_timeout=7.0)

faust.App = Impatient
run_projector(Settings())
"""
"""The worker, with a Faust that gives requests up after 7 s and not after 90."""


def test_partitions_that_are_assigned_in_a_long_outage_are_read_after_it(
    stack_settings: Settings, ledger: Ledger, start: Start, close_to_others: Callable[[bool], None]
) -> None:
    publish_all(stack_settings, stories(50))
    first, second = start(program=("-c", IMPATIENT)), start(watch_interval_s=0.1, program=("-c", IMPATIENT))
    folded_to_the_end(ledger, first, second)
    owned = ("spanfold_partitions_owned",)
    until(lambda: metrics_of(second).get(owned), "partitions of the second one", second.output)
    before = metrics_of(second)[owned]
    close_to_others(True)
    first.kill()
    until(lambda: metrics_of(second)[owned] > before, "the partitions of the first one", second.output)
    time.sleep(9)  # longer than Faust's patience
    close_to_others(False)
    publish_all(stack_settings, stories(100)[50:])
    folded_to_the_end(ledger, second)
    assert second.stop() == 0


def test_a_worker_whose_postgres_hangs_says_so_and_recovers(
    stack_settings: Settings, ledger: Ledger, start: Start
) -> None:
    worker = start(watch_interval_s=0.1, stalled_after_s=1)
    until(lambda: metrics_of(worker).get(("spanfold_partitions_owned",)), "an owner", worker.output)
    with psycopg.connect(str(stack_settings.postgres_dsn)) as blocking:
        blocking.execute("LOCK TABLE spanfold_core.checkpoints IN ACCESS EXCLUSIVE MODE")
        hangs = "Postgres has not answered for "
        until(lambda: any(each.startswith(hangs) for each in health_of(worker)[1]), "what is wrong", worker.output)
        assert health_of(worker)[0] == 503
    until(lambda: health_of(worker) == (200, []), "a worker that is well again", worker.output)


def test_a_worker_that_owns_nothing_is_unwell(stack_settings: Settings, ledger: Ledger, start: Start) -> None:
    worker = start(watch_interval_s=0.1, unowned_after_s=0.01)
    assert health_of(worker)[1][0].startswith("it has owned no partition for ")
    until(lambda: health_of(worker)[0] == 200, "an owner", worker.output)
    assert metrics_of(worker)["spanfold_partitions_owned",] >= stack_settings.partitions
    assert worker.stop() == 0


def test_a_port_that_is_taken_stops_the_worker_with_what_to_do(
    stack_settings: Settings, ledger: Ledger, start: Start
) -> None:
    first = start()
    port = url_of(first).rpartition(":")[2]
    second = start(worker_port=int(port))
    assert second.process.wait() == 3
    assert f"spanfold: the worker can't listen on 127.0.0.1:{port}: Address already in use" in second.output()


# Too much to park


def suspended(ledger: Ledger) -> dict[str, str]:
    return dict(ledger.execute("SELECT name, suspended_because FROM spanfold.suspensions").fetchall())


def test_a_topic_that_nobody_can_read_is_suspended_before_it_is_parked_and_others_go_on(
    stack_settings: Settings, ledger: Ledger, start: Start
) -> None:
    producer, produce = raw_producer(stack_settings)
    for event in stories(2000):
        produce(b"\0\0\0\0\7 another schema", key_of(event), headers_of(event))
    assert producer.flush(30) == 0
    worker = start()
    until(lambda: suspended(ledger), "the suspension", worker.output)
    assert re.match(
        r"\d+ of the last \d+ records of spanfold\.traces can't be folded, ", suspended(ledger)[TRACES.name]
    )
    assert "unknown_schema: schema id 7 is unknown here" in suspended(ledger)[TRACES.name]
    ((parked,),) = ledger.execute("SELECT count(*) FROM spanfold.parked_records").fetchall()
    assert parked < 1000
    assert sum(positions(ledger).values()) == parked
    # the worker works on: other topics are folded, and it is well
    publish_metric(stack_settings)
    until(lambda: ledger.execute("SELECT 1 FROM spanfold.metrics").fetchall(), "the metric", worker.output)
    said = json_of(stack_settings, "status", code=1)
    assert [each["name"] for each in said["suspensions"]] == [TRACES.name]
    assert any("topic spanfold.traces is suspended (since" in problem for problem in said["problems"])
    # and goes on by itself once it is told that this is how it is
    assert command(stack_settings, "resume", TRACES.name, "--park").returncode == 0
    folded_to_the_end(ledger, worker)
    ((parked,),) = ledger.execute("SELECT count(*) FROM spanfold.parked_records").fetchall()
    assert parked == 2000
    assert worker.stop() == 0


def test_tables_that_refuse_most_of_a_topic_suspend_it(stack_settings: Settings, ledger: Ledger, start: Start) -> None:
    publish_all(stack_settings, stories(2000))
    ledger.execute("ALTER TABLE traces_g1.spans ADD CONSTRAINT nobody_pays CHECK (operation_name <> 'pay')")
    worker = start(batch_records=100)
    until(lambda: suspended(ledger), "the suspension", worker.output)
    stood = sum(positions(ledger).values())
    assert stood < 2000
    ledger.execute("ALTER TABLE traces_g1.spans DROP CONSTRAINT nobody_pays")
    assert command(stack_settings, "resume", TRACES.name).returncode == 0
    folded_to_the_end(ledger, worker)
    ((parked,),) = ledger.execute("SELECT count(*) FROM spanfold.parked_records").fetchall()
    assert 0 < parked < stood
    assert worker.stop() == 0


@pytest.mark.parametrize("share", [0, -1, 1.1])
def test_a_share_is_more_than_nothing_and_at_most_all(share: float) -> None:
    with pytest.raises(ValueError, match="parked_share_limit"):
        Settings(parked_share_limit=share)
