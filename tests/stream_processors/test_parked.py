"""`spanfold parked`, with workers as processes: a record that was parked, once its cause is repaired and it is retried, is in
the tables as if nothing had been.

Two causes are repaired here as they are in reality: software that lacks a schema is upgraded, a constraint is dropped.
Bytes that contradict themselves, are broken or say what Postgres can't hold don't get better by themselves; there the
repair is simulated by a worker whose codec understands them, and without it retrying says that they are still parked.
"""

import re
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from spanfold.language.events import SpanRecorded, TraceCompleted, TraceEvent
from spanfold.language.records import headers_of, key_of
from spanfold.language.settings import Settings
from spanfold.operations.installation import user_at_host
from spanfold.schemas.codec import Codec
from tests.support import other_versions
from tests.support.commands import command, json_of
from tests.support.databases import Ledger
from tests.support.other_versions import PADDING
from tests.support.processes import Finished
from tests.support.publishing import publish_all
from tests.support.stories import raw_producer, stories
from tests.support.tables import checksums
from tests.support.workers import PROJECTOR, Start, folded_to_the_end

pytestmark = pytest.mark.timeout(300)


def parked(settings: Settings, *words: str, stdin: str = "") -> Finished:
    """`spanfold parked …` as a user has it."""
    return command(settings, "parked", *words, stdin=stdin)


def settled(retried: int = 0, remarks: Sequence[str] = ()) -> dict[str, Any]:
    """What it tells programs when so many records are retried, and no other is left."""
    counts = {"appended": retried, "retried": retried, "discarded": 0, "erased": 0}
    return {**counts, "remarks": list(remarks), "still_parked": []}


def reasons(of: Settings, *words: str) -> dict[str, int]:
    return {each["reason"]: each["records"] for each in json_of(of, "parked", "list", "--summary", *words)}


def rows(ledger: Ledger) -> dict[str, tuple[int, int]]:
    """How many rows each table has, and their hashes, versions included; but for what is parked."""
    sums = checksums(ledger)
    del sums["parked_records"]
    return sums


def facts(ledger: Ledger) -> Counter[tuple[str, str, str]]:
    """Of the facts that settled records: what they are, who said so, and why. Each names its record and is of this moment."""
    found: Counter[tuple[str, str, str]] = Counter()
    for payload, offset, aggregate_id in ledger.execute(SETTLING):
        event_type, fields = Codec().decode(payload)
        assert (fields["record_topic"], fields["record_offset"]) == ("spanfold.traces", offset)
        assert fields["aggregate_id"] == aggregate_id
        assert abs(time.time_ns() // 1000 - fields["occurred_at"]) < 300_000_000
        found[event_type, fields["source"], fields["why"]] += 1
    return found


SETTLING = """
SELECT j.payload, p.kafka_offset, p.aggregate_id
  FROM spanfold.parked_records p
  JOIN spanfold.journal j
    ON j.topic = p.topic AND j.partition = p.partition AND j.kafka_offset = p.settled_offset
"""


def undisturbed(ledger: Ledger, second: Settings, start: Start, program: tuple[str, ...] = PROJECTOR) -> None:
    """The tables are those that a worker makes that meets the log with everything repaired."""
    other = start(second, program=program)
    with psycopg.connect(str(second.postgres_dsn), autocommit=True) as second_ledger:
        folded_to_the_end(second_ledger, other)
        assert rows(ledger) == rows(second_ledger)
    assert other.stop() == 0


def wrong(events: Sequence[TraceEvent]) -> list[TraceEvent]:
    """One completion of a trace of its own for each reason that lies in the bytes; the texts name it."""
    at = events[0].occurred_at
    return [
        TraceCompleted(aggregate_id=f"a {reason} record", occurred_at=at, source="test", end_time=at, status=reason)
        for reason in ("unreadable", "contradiction", "invalid")
    ]


def publish_wrong(to: Settings, events: Sequence[TraceEvent]) -> None:
    """Publish what wrong() made, each so wrong as it says, with key and headers that are right."""
    producer, produce = raw_producer(to)
    codec = Codec()
    changes: list[dict[str, Any]] = [{}, {"aggregate_id": events[1].aggregate_id.upper()}, {"status": "in\0valid"}]
    for event, change, padding in zip(events, changes, (PADDING, b"", b""), strict=True):
        value = codec.encode(event.event_type, event.as_fields() | change)
        produce(value + padding, key_of(event), headers_of(event))
    assert producer.flush(30) == 0


def test_what_older_software_does_not_know_is_folded_once_it_is_upgraded_and_retried(
    stack_settings: Settings, second_settings: Settings, ledger: Ledger, start: Start
) -> None:
    events = stories(500)
    publish_all(stack_settings, events)
    spans = [event for event in events if isinstance(event, SpanRecorded)]
    worker = start(program=other_versions.program("without_spans"))
    folded_to_the_end(ledger, worker)
    assert reasons(stack_settings) == {"unknown_schema": len(spans)}

    # the same version that parked it can't fold it now either
    first = json_of(stack_settings, "parked", "list", "--limit", "1")[0]
    still = json_of(stack_settings, "parked", "retry", first["position"], "--yes", code=1)
    assert [(each["position"], each["reason"]) for each in still["still_parked"]] == [
        (first["position"], "unknown_schema")
    ]
    assert still["still_parked"][0]["last_tried_offset"] is not None
    assert worker.stop() == 0

    folded_to_the_end(ledger, start())
    done = json_of(stack_settings, "parked", "retry", "--reason", "unknown_schema", "--yes", "--why", "upgraded")
    assert done == settled(retried=len(spans))
    assert reasons(stack_settings) == {}
    assert reasons(stack_settings, "--state", "retried") == {"unknown_schema": len(spans)}
    assert facts(ledger) == {("RecordRetried", user_at_host(), "upgraded"): len(spans)}
    undisturbed(ledger, second_settings, start)


def test_what_postgres_refused_is_folded_once_it_no_longer_does_and_is_retried(
    stack_settings: Settings, second_settings: Settings, ledger: Ledger, start: Start
) -> None:
    ledger.execute("ALTER TABLE traces_g1.spans ADD CONSTRAINT no_refunds CHECK (operation_name <> 'refund')")
    events = stories(100)
    spans = {n: event for n, event in enumerate(events) if n % 10 == 1 and isinstance(event, SpanRecorded)}
    for number, span in spans.items():
        events[number] = replace(span, operation_name="refund")
    publish_all(stack_settings, events)
    folded_to_the_end(ledger, start())
    assert reasons(stack_settings) == {"refused": len(spans)}
    (first, *_) = json_of(stack_settings, "parked", "list", "--reason", "refused")
    shown = parked(stack_settings, "show", first["position"])
    assert "no_refunds" in shown.stdout
    assert re.search(r"operation_name +refund", shown.stdout)

    # while the constraint is there, retrying is in vain
    (still,) = json_of(stack_settings, "parked", "retry", first["position"], "--yes", code=1)["still_parked"]
    assert (still["position"], still["reason"]) == (first["position"], "refused")

    ledger.execute("ALTER TABLE traces_g1.spans DROP CONSTRAINT no_refunds")
    done = parked(stack_settings, "retry", "--reason", "refused", stdin="y\n")
    assert done.returncode == 0, done.stderr
    assert f"Retry: {len(spans)} records? [y/N]" in done.stderr
    assert done.stdout == f"{len(spans)} records retried and folded\n"
    undisturbed(ledger, second_settings, start)


def test_wrong_bytes_stay_parked_until_there_is_software_that_reads_them(
    stack_settings: Settings, second_settings: Settings, ledger: Ledger, start: Start
) -> None:
    events = stories(200)
    bad = wrong(events)
    publish_all(stack_settings, events)
    publish_wrong(stack_settings, bad)
    worker = start()
    folded_to_the_end(ledger, worker)
    assert reasons(stack_settings) == {"contradiction": 1, "invalid": 1, "unreadable": 1}
    for record in json_of(stack_settings, "parked", "list"):
        shown = json_of(stack_settings, "parked", "show", record["position"])
        assert shown["record"]["aggregate_id"] == f"a {record['reason']} record"
        assert shown["decoded"]["event_type"] == "TraceCompleted"
        assert (shown["decoded"]["fields"] is None) == (record["reason"] == "unreadable")

    vain = parked(stack_settings, "retry", "--all", "--yes")
    assert vain.returncode == 1
    assert "0 records retried and folded, 3 still parked" in vain.stdout
    assert "2 bytes after the end of TraceCompleted" in vain.stdout
    assert all(each["last_tried_offset"] is not None for each in json_of(stack_settings, "parked", "list"))
    assert worker.stop() == 0

    understanding = start(program=other_versions.program("understanding"))
    folded_to_the_end(ledger, understanding)
    assert json_of(stack_settings, "parked", "retry", "--all", "--yes")["retried"] == len(bad)
    undisturbed(ledger, second_settings, start, other_versions.program("understanding"))


def test_what_was_given_up_is_never_folded_and_that_is_final(
    stack_settings: Settings, second_settings: Settings, ledger: Ledger, start: Start
) -> None:
    events = stories(100)
    publish_all(stack_settings, events)
    publish_wrong(stack_settings, wrong(events))
    worker = start()
    folded_to_the_end(ledger, worker)
    position = json_of(stack_settings, "parked", "list", "--reason", "unreadable")[0]["position"]
    done = parked(stack_settings, "discard", position, "--yes", "--why", "a broken client")
    assert (done.returncode, done.stdout) == (0, "1 record discarded\n")
    assert worker.stop() == 0

    # software that could read it comes too late
    folded_to_the_end(ledger, start(program=other_versions.program("understanding")))
    late = parked(stack_settings, "retry", position, "--yes")
    assert late.returncode == 2
    assert f"{position} was discarded at offset " in late.stderr
    again = json_of(stack_settings, "parked", "discard", position, "--yes")
    at = json_of(stack_settings, "parked", "show", position)["record"]["settled_offset"]
    assert again == settled(remarks=[f"{position} was discarded before, at offset {at}"])
    assert ledger.execute("SELECT 1 FROM spanfold.traces WHERE trace_id = 'a unreadable record'").fetchone() is None

    assert json_of(stack_settings, "parked", "retry", "--all", "--yes")["retried"] == 2
    twice = parked(stack_settings, "retry", "--all", "--yes")
    assert (twice.returncode, twice.stdout) == (0, "nothing to do: no parked record matches\n")
