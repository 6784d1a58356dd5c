"""`spanfold parked`, with workers as processes: a record that was parked, once its cause is repaired and it is retried, is in
the tables as if nothing had been.

Two causes are repaired here as they are in reality: software that lacks a schema is upgraded, a constraint is dropped.
Bytes that contradict themselves, are broken or say what Postgres can't hold don't get better by themselves; there the
repair is simulated by a worker whose codec understands them, and without it retrying says that they are still parked.
"""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from spanfold.bootstrap import run_projector
from spanfold.language.events import SpanRecorded, TraceCompleted, TraceEvent
from spanfold.language.records import headers_of, key_of
from spanfold.language.settings import Settings, settings
from spanfold.operations.installation import user_at_host
from spanfold.schemas.catalogue import Catalogue, RegisteredSchema
from spanfold.schemas.codec import Codec, Fields
from tests.stream_processors.conftest import PROJECTOR, Start, folded_to_the_end
from tests.stream_processors.test_projector import checksums, publish, raw_producer, stories

Ledger = psycopg.Connection[Any]
Result = subprocess.CompletedProcess[str]

pytestmark = pytest.mark.timeout(300)

ROOT = Path(__file__).parents[2]
PADDING = b"?!"


def as_program(name: str) -> tuple[str, ...]:
    """What Python runs to be the worker that this function of this module is."""
    script = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); from tests.stream_processors import test_parked as workers"
    )
    return ("-c", f"{script}; workers.{name}()")


def older() -> None:
    """The projector of a version that does not know SpanRecorded yet."""
    by_id = Catalogue.by_id

    def forgetful(self: Catalogue, schema_id: int) -> RegisteredSchema | None:
        entry = by_id(self, schema_id)
        return None if entry is None or entry.event_type == "SpanRecorded" else entry

    Catalogue.by_id = forgetful  # type: ignore[method-assign]
    run_projector(settings())


def newer() -> None:
    """The projector of a version that understands what ours can't: padded bytes, upper-case trace ids, NULs in texts."""
    decode = Codec.decode

    def understanding(self: Codec, value: bytes | None) -> tuple[str, Fields]:
        event_type, fields = decode(self, value and value.removesuffix(PADDING))
        texts = {name: text.replace("\0", "") for name, text in fields.items() if isinstance(text, str)}
        return event_type, fields | texts | {"aggregate_id": texts["aggregate_id"].lower()}

    Codec.decode = understanding  # type: ignore[method-assign]
    run_projector(settings())


def parked(of: Settings, *words: str, stdin: str = "") -> Result:
    """`spanfold parked …` as a user has it."""
    named = {f"SPANFOLD_{name.upper()}": str(value) for name, value in of.model_dump().items() if value is not None}
    command = [sys.executable, "-m", "spanfold", "parked", *words]
    return subprocess.run(command, env=os.environ | named, input=stdin, capture_output=True, text=True, timeout=120)


def told(of: Settings, *words: str, code: int = 0) -> Any:
    """What it tells programs."""
    done = parked(of, *words, "--json")
    assert done.returncode == code, done.stdout + done.stderr
    return json.loads(done.stdout)


def settled(retried: int = 0, remarks: Sequence[str] = ()) -> dict[str, Any]:
    """What it tells programs when so many records are retried, and no other is left."""
    counts = {"appended": retried, "retried": retried, "discarded": 0, "erased": 0}
    return {**counts, "remarks": list(remarks), "still_parked": []}


def reasons(of: Settings, *words: str) -> dict[str, int]:
    return {each["reason"]: each["records"] for each in told(of, "list", "--summary", *words)}


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
    publish(stack_settings, events)
    spans = [event for event in events if isinstance(event, SpanRecorded)]
    worker = start(program=as_program("older"))
    folded_to_the_end(ledger, worker)
    assert reasons(stack_settings) == {"unknown_schema": len(spans)}

    # the same version that parked it can't fold it now either
    first = told(stack_settings, "list", "--limit", "1")[0]
    still = told(stack_settings, "retry", first["position"], "--yes", code=1)
    assert [(each["position"], each["reason"]) for each in still["still_parked"]] == [
        (first["position"], "unknown_schema")
    ]
    assert still["still_parked"][0]["last_tried_offset"] is not None
    assert worker.stop() == 0

    folded_to_the_end(ledger, start())
    done = told(stack_settings, "retry", "--reason", "unknown_schema", "--yes", "--why", "upgraded")
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
    publish(stack_settings, events)
    folded_to_the_end(ledger, start())
    assert reasons(stack_settings) == {"refused": len(spans)}
    (first, *_) = told(stack_settings, "list", "--reason", "refused")
    shown = parked(stack_settings, "show", first["position"])
    assert "no_refunds" in shown.stdout
    assert "operation_name  refund" in shown.stdout

    # while the constraint is there, retrying is in vain
    (still,) = told(stack_settings, "retry", first["position"], "--yes", code=1)["still_parked"]
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
    publish(stack_settings, events)
    publish_wrong(stack_settings, bad)
    worker = start()
    folded_to_the_end(ledger, worker)
    assert reasons(stack_settings) == {"contradiction": 1, "invalid": 1, "unreadable": 1}
    for record in told(stack_settings, "list"):
        shown = told(stack_settings, "show", record["position"])
        assert shown["record"]["aggregate_id"] == f"a {record['reason']} record"
        assert shown["decoded"]["event_type"] == "TraceCompleted"
        assert (shown["decoded"]["fields"] is None) == (record["reason"] == "unreadable")

    vain = parked(stack_settings, "retry", "--all", "--yes")
    assert vain.returncode == 1
    assert "0 records retried and folded, 3 still parked" in vain.stdout
    assert "2 bytes after the end of TraceCompleted" in vain.stdout
    assert all(each["last_tried_offset"] is not None for each in told(stack_settings, "list"))
    assert worker.stop() == 0

    understanding = start(program=as_program("newer"))
    folded_to_the_end(ledger, understanding)
    assert told(stack_settings, "retry", "--all", "--yes")["retried"] == len(bad)
    undisturbed(ledger, second_settings, start, as_program("newer"))


def test_what_was_given_up_is_never_folded_and_that_is_final(
    stack_settings: Settings, second_settings: Settings, ledger: Ledger, start: Start
) -> None:
    events = stories(100)
    publish(stack_settings, events)
    publish_wrong(stack_settings, wrong(events))
    worker = start()
    folded_to_the_end(ledger, worker)
    position = told(stack_settings, "list", "--reason", "unreadable")[0]["position"]
    done = parked(stack_settings, "discard", position, "--yes", "--why", "a broken client")
    assert (done.returncode, done.stdout) == (0, "1 record discarded\n")
    assert worker.stop() == 0

    # software that could read it comes too late
    folded_to_the_end(ledger, start(program=as_program("newer")))
    late = parked(stack_settings, "retry", position, "--yes")
    assert late.returncode == 2
    assert f"{position} was discarded at offset " in late.stderr
    again = told(stack_settings, "discard", position, "--yes")
    at = told(stack_settings, "show", position)["record"]["settled_offset"]
    assert again == settled(remarks=[f"{position} was discarded before, at offset {at}"])
    assert ledger.execute("SELECT 1 FROM spanfold.traces WHERE trace_id = 'a unreadable record'").fetchone() is None

    assert told(stack_settings, "retry", "--all", "--yes")["retried"] == 2
    twice = parked(stack_settings, "retry", "--all", "--yes")
    assert (twice.returncode, twice.stdout) == (0, "nothing to do: no parked record matches\n")
