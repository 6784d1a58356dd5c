"""Workers as processes, on a real log: nothing is counted twice or lost, whatever comes and whatever ends them."""

import os
import time

import psycopg
import pytest

from spanfold.language.events import TraceCompleted
from spanfold.language.partitioning import partitions_of
from spanfold.language.records import headers_of, key_of
from spanfold.language.settings import Settings
from spanfold.schemas.codec import Codec
from tests.support.databases import Ledger
from tests.support.publishing import publish_all
from tests.support.stories import raw_producer, stories
from tests.support.tables import checksums
from tests.support.topics import log_ends
from tests.support.trace_rows import shown, told
from tests.support.waiting import until
from tests.support.workers import Start, folded_to_the_end, positions

EVENTS = int(os.environ.get("SPANFOLD_TEST_EVENTS", "20000"))
"""How many events the kill test publishes."""


def verdict_counts(ledger: Ledger) -> dict[str, int]:
    return dict(ledger.execute("SELECT verdict, count(*) FROM spanfold.verdicts GROUP BY 1").fetchall())


def test_records_published_three_times_over_change_nothing(
    stack_settings: Settings, ledger: Ledger, start: Start
) -> None:
    events = stories(2000)
    publish_all(stack_settings, events)
    worker = start()
    folded_to_the_end(ledger, worker)
    once = shown(ledger), {view: sums for view, sums in checksums(ledger).items() if view != "verdicts"}
    assert once[0] == told(events)

    for _ in range(2):
        publish_all(stack_settings, reversed(events))
    folded_to_the_end(ledger, worker)
    assert (shown(ledger), {view: sums for view, sums in checksums(ledger).items() if view != "verdicts"}) == once
    assert verdict_counts(ledger) == {"accepted": 2000, "duplicate": 4000}
    assert worker.stop() == 0


def test_bad_records_of_every_kind_stop_nobody(stack_settings: Settings, ledger: Ledger, start: Start) -> None:
    events = stories(1000)
    publish_all(stack_settings, events[:500])
    good, codec = events[0], Codec()
    value, key, headers = codec.encode(good.event_type, good.as_fields()), key_of(good), headers_of(good)
    home = int(partitions_of([key], stack_settings.partitions)[0])
    producer, produce = raw_producer(stack_settings)
    produce(value, key)  # no headers
    produce(value, None, headers)
    produce(value, b"", headers, partition=1)
    produce(value, b"\xff", headers)
    produce(None, None)
    produce(b"", b"")
    produce(value, key, [("event_id", None), ("event_type", b"\xff\0"), ("", b"")])
    produce(value, key, [*headers, ("occurred_at", b"-999999999999999999")])
    produce(value, key, headers, partition=(home + 1) % stack_settings.partitions)
    rejected = 9
    others = [
        TraceCompleted(aggregate_id=f"bad {number}", occurred_at=events[0].occurred_at, source="test", end_time=1)
        for number in range(5)
    ]
    produce(None, key_of(others[0]), headers_of(others[0]))
    produce(b"\xff" * 900_000, key_of(others[1]), headers_of(others[1]))
    produce(b"\0" * 900_000, key_of(others[2]), headers_of(others[2]))
    produce(value, key_of(others[3]), headers_of(others[3]))
    produce(codec.encode("TraceCompleted", others[4].as_fields())[:-1], key_of(others[4]), headers_of(others[4]))
    assert producer.flush(30) == 0
    publish_all(stack_settings, events[500:])

    worker = start()
    folded_to_the_end(ledger, worker)
    assert shown(ledger) == told(events)
    assert ledger.execute("SELECT count(*) FROM spanfold.parked_records").fetchone() == (len(others),)
    said = verdict_counts(ledger)
    assert said.pop("accepted") == len(events) + len(others)
    assert sum(said.values()) == rejected
    assert said.keys() == {"malformed", "misrouted", "expired"}
    assert worker.stop() == 0


def test_a_value_as_large_as_the_topic_takes_is_a_row(stack_settings: Settings, ledger: Ledger, start: Start) -> None:
    large = TraceCompleted(
        aggregate_id="large",
        occurred_at=time.time_ns() // 1000,
        source="test",
        end_time=1,
        tags={"body": "x" * 900_000},
    )
    publish_all(stack_settings, [large])
    worker = start(fetch_bytes=1024)
    folded_to_the_end(ledger, worker)
    assert shown(ledger) == told([large])


def test_whatever_compression_a_producer_chose_its_records_are_read(
    stack_settings: Settings, ledger: Ledger, start: Start
) -> None:
    events, codec = stories(500), Codec()
    for number, compression in enumerate(("none", "gzip", "snappy", "lz4", "zstd")):
        producer, produce = raw_producer(stack_settings, **{"compression.type": compression})
        for event in events[number * 100 : number * 100 + 100]:
            produce(codec.encode(event.event_type, event.as_fields()), key_of(event), headers_of(event))
        assert producer.flush(30) == 0
    folded_to_the_end(ledger, start())
    assert shown(ledger) == told(events)


def test_a_log_that_ends_in_aborted_records_is_reached_and_they_are_not_seen(
    stack_settings: Settings, ledger: Ledger, start: Start
) -> None:
    events, codec = stories(1000), Codec()
    producer, produce = raw_producer(stack_settings, **{"transactional.id": stack_settings.group})
    producer.init_transactions(30)
    for number in range(0, 1000, 200):
        producer.begin_transaction()
        for event in events[number : number + 200]:
            produce(codec.encode(event.event_type, event.as_fields()), key_of(event), headers_of(event))
        assert producer.flush(30) == 0
        if number % 400 == 0:
            producer.abort_transaction(30)
        else:
            producer.commit_transaction(30)
    committed = events[200:400] + events[600:800]
    worker = start()
    folded_to_the_end(ledger, worker)
    assert sum(log_ends(stack_settings).values()) > len(events)
    assert shown(ledger) == told(committed)
    assert verdict_counts(ledger) == {"accepted": len(committed)}
    # and a worker that starts where nothing but aborted records was left goes on from there
    assert worker.stop() == 0
    publish_all(stack_settings, events[:200])
    folded_to_the_end(ledger, start())
    assert shown(ledger) == told(committed + events[:200])


# Kills


HOLD = """
CREATE TABLE public.hold (at bigint NOT NULL);
INSERT INTO public.hold VALUES (9223372036854775807);
CREATE FUNCTION public.hold() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (SELECT sum(next_offset) FROM spanfold_core.checkpoints WHERE projection = 'journal') >= (SELECT at FROM public.hold) THEN
        PERFORM pg_advisory_xact_lock(7, 7);
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER hold BEFORE UPDATE ON spanfold_core.checkpoints FOR EACH ROW EXECUTE FUNCTION public.hold();
"""
"""Holds a worker in the middle of its transaction, rows written and checkpoints not, once so many records are folded: as
long as the test has the lock.
"""

HELD = """
SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database
WHERE d.datname = current_database() AND locktype = 'advisory' AND (classid, objid, objsubid) = (7, 7, 2) AND NOT granted
"""
"""Workers that wait for the test's lock. Tests that run beside this one have databases on the same server."""

CONNECTED = """
SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'spanfold projector'
"""


def hold_at(ledger: Ledger, position: int) -> None:
    ledger.execute("UPDATE public.hold SET at = %s", [position])


def count(ledger: Ledger, query: str) -> int:
    row = ledger.execute(query.encode()).fetchone()
    assert row
    return int(row[0])


@pytest.mark.timeout(600)
def test_kill_minus_9_at_any_point_leaves_the_same_tables_as_no_kill(
    stack_settings: Settings, second_settings: Settings, ledger: Ledger, start: Start
) -> None:
    events = stories(EVENTS)
    publish_all(stack_settings, events)
    publish_all(stack_settings, events[:: len(events) // 100])
    total = sum(log_ends(stack_settings).values())
    ledger.execute(HOLD.encode())
    small = max(EVENTS // 200, 1)
    # each in a group of its own, whose partitions no dead member has: where to read from is not Kafka's to say
    for share in (0.1, 0.5, 0.9):
        # in the middle of a transaction
        hold_at(ledger, int(total * share))
        ledger.execute("SELECT pg_advisory_lock(7, 7)")
        worker = start(batch_records=small, group=f"{stack_settings.group}-{share}")
        until(lambda: count(ledger, HELD), f"a commit at {share}", worker.output)
        worker.kill()
        before = sum(positions(ledger).values())
        assert total * share - small <= before < total
        hold_at(ledger, 1 << 62)
        ledger.execute("SELECT pg_advisory_unlock(7, 7)")
        until(lambda: not count(ledger, CONNECTED), "the end of the killed worker's connection")
        assert sum(positions(ledger).values()) == before
    # wherever it happens to be
    worker = start(batch_records=small)
    until(lambda: sum(positions(ledger).values()) > before, "progress", worker.output)
    worker.kill()
    worker = start()
    folded_to_the_end(ledger, worker)
    assert worker.stop() == 0

    undisturbed = start(second_settings)
    with psycopg.connect(str(second_settings.postgres_dsn), autocommit=True) as second_ledger:
        folded_to_the_end(second_ledger, undisturbed)
        assert checksums(ledger) == checksums(second_ledger)
    assert verdict_counts(ledger) == {"accepted": len(events), "duplicate": total - len(events)}
    if EVENTS <= 50_000:
        assert shown(ledger) == told(events)


def test_of_two_workers_that_share_the_partitions_one_is_killed(
    stack_settings: Settings, ledger: Ledger, start: Start
) -> None:
    events = stories(4000)
    publish_all(stack_settings, events[:1000])
    first, second = start(), start()
    folded_to_the_end(ledger, first, second)
    until(lambda: count(ledger, CONNECTED) == 2, "two workers at work", lambda: first.output() + second.output())
    publish_all(stack_settings, events[1000:2000])
    folded_to_the_end(ledger, first, second)
    publish_all(stack_settings, events[2000:3000])
    first.kill()
    publish_all(stack_settings, events[3000:])
    folded_to_the_end(ledger, second)
    assert shown(ledger) == told(events)
    assert verdict_counts(ledger) == {"accepted": len(events)}
    assert second.stop() == 0


# The end of a worker


def test_sigterm_ends_an_idle_worker_soon(stack_settings: Settings, ledger: Ledger, start: Start) -> None:
    publish_all(stack_settings, stories(100))
    worker = start()
    folded_to_the_end(ledger, worker)
    assert worker.stop(45) == 0


def test_sigterm_ends_a_worker_that_is_catching_up_soon_and_loses_nothing(
    stack_settings: Settings, ledger: Ledger, start: Start
) -> None:
    events = stories(5000)
    publish_all(stack_settings, events)
    ledger.execute(HOLD.encode())
    hold_at(ledger, 100)
    ledger.execute("SELECT pg_advisory_lock(7, 7)")
    worker = start(batch_records=10)
    until(lambda: count(ledger, HELD), "a commit", worker.output)
    ledger.execute("SELECT pg_advisory_unlock(7, 7)")
    assert worker.stop(45) == 0
    assert sum(positions(ledger).values()) < len(events)
    folded_to_the_end(ledger, start())
    assert shown(ledger) == told(events)


def test_sigterm_ends_a_worker_whose_commit_postgres_does_not_answer(
    stack_settings: Settings, ledger: Ledger, start: Start
) -> None:
    events = stories(1000)
    publish_all(stack_settings, events)
    ledger.execute(HOLD.encode())
    hold_at(ledger, 100)
    ledger.execute("SELECT pg_advisory_lock(7, 7)")
    worker = start(batch_records=10)
    until(lambda: count(ledger, HELD), "a commit", worker.output)
    before = positions(ledger)
    assert worker.stop(45) == 0
    assert positions(ledger) == before
    ledger.execute("SELECT pg_advisory_unlock(7, 7)")
    folded_to_the_end(ledger, start())
    assert shown(ledger) == told(events)
