"""`spanfold parked` as a user has it, on tables with parked records in them. What retrying does is tested where the workers
are: tests/stream_processors/test_parked.py.
"""

import json
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from typer.testing import Result

from spanfold.cli.output import one_line
from spanfold.cli.parked_record import hex_dump
from spanfold.language.errors import InvalidInput, Misconfigured, SpanfoldError, StoreUnavailable
from spanfold.language.events import SpanRecorded, TraceCompleted
from spanfold.language.partitioning import partitions_of
from spanfold.operations.parked.payload import decoded
from spanfold.projections.commit.store import Store
from spanfold.projections.projection import installed
from spanfold.schemas.codec import Codec
from tests.support.commands import Invoke, answer
from tests.support.databases import Ledger
from tests.support.erasure import erased
from tests.support.strategies import LOG_TIME_MS, NOW, Record, batch, record

SAID: dict[str, Any] = {"occurred_at": NOW, "source": "test"}
GOOD = TraceCompleted(aggregate_id="good", end_time=NOW, **SAID)
BAD = TraceCompleted(aggregate_id="[bad]\n", end_time=NOW, status="x" * 3000, **SAID)
NUL = TraceCompleted(aggregate_id="nul", end_time=NOW, status="\0", tags={"n": float("nan"), "\x1b[2J": 1}, **SAID)
SPAN = SpanRecorded(
    aggregate_id="span", span_id="1", parent_span_id=None, service_name="shop", operation_name="pay",
    start_time=NOW, end_time=NOW, **SAID,
)  # fmt: skip

HOME, AWAY = 2, 3
"""Offsets of a record whose key belongs to partition 0 on the broker too, and of one whose key does not."""

AFTER = "2026-11-18T11:06:42Z"
"""Two seconds after the first record."""


def log() -> list[Record]:
    """Five records, a second apart: one good, one of each reason that lies in the bytes, and a rejected one."""
    unknown = b"\0\0\0\0\7" + b"?" * 2000
    records = [
        record(GOOD, 0),
        record(BAD, 1, value=Codec().encode("TraceCompleted", BAD.as_fields()) + b"!"),
        record(SPAN, 2, value=unknown),
        record(NUL, 3),
        record(GOOD, 4),
        record(replace(GOOD, aggregate_id="none", event_id=b""), 5, value=None),
    ]
    return [replace(each, log_time_ms=LOG_TIME_MS + each.offset * 1000) for each in records]


@pytest.fixture
def run(invoke: Invoke, ledger: Ledger) -> Invoke:
    store = Store(installed())
    store.commit(ledger, store.prepare(batch(log())))
    return partial(invoke, "parked")


def refusal(done: Result, kind: type[SpanfoldError] = InvalidInput) -> str:
    assert isinstance(done.exception, kind), done.output
    return str(done.exception)


# list


def test_the_newest_is_listed_last_with_its_position_reason_and_state(run: Invoke) -> None:
    listed = answer(run, "list")
    assert [each["position"] for each in listed] == [f"spanfold.traces/0@{offset}" for offset in (1, 2, 3, 5)]
    assert [each["reason"] for each in listed] == ["unreadable", "unknown_schema", "invalid", "unreadable"]
    assert {each["state"] for each in listed} == {"parked"}
    assert listed[1] == {
        "position": "spanfold.traces/0@2", "topic": "spanfold.traces", "partition": 0, "kafka_offset": 2,
        "reason": "unknown_schema", "detail": "schema id 7 is unknown here: upgrade, then retry",
        "event_id": listed[1]["event_id"], "event_type": "SpanRecorded", "aggregate_id": "span",
        "occurred_at": "2026-11-18T11:06:40+00:00", "log_time": "2026-11-18T11:06:42+00:00",
        "state": "parked", "settled_offset": None, "last_tried_offset": None, "payload_bytes": 2005, "value_bytes": None,
    }  # fmt: skip


def test_a_table_has_a_line_for_each_whatever_its_texts_hold(run: Invoke) -> None:
    done = run("list")
    assert len(done.stdout.splitlines()) == 5
    assert "[bad]\\n" in done.stdout
    assert done.stderr == "(4 records)\n"
    assert run("list", "--limit", "3").stderr == "(3 records, the newest of 4: --limit shows more)\n"


FILTERS: dict[tuple[str, ...], list[int]] = {
    ("--reason", "unreadable"): [1, 5],
    ("--topic", "spanfold.traces"): [1, 2, 3, 5],
    ("--topic", "logs"): [],
    ("--since", AFTER): [2, 3, 5],
    ("--until", AFTER): [1],
    ("--since", AFTER, "--until", "2026-11-18T12:06:43+01:00"): [2],
    ("--aggregate", "nul"): [3],
    ("--limit", "2"): [3, 5],
    ("--state", "discarded"): [],
    ("--state", "all", "--reason", "invalid"): [3],
}


def test_filters_choose(run: Invoke) -> None:
    for words, offsets in FILTERS.items():
        assert [each["kafka_offset"] for each in answer(run, "list", *words)] == offsets, words


def test_the_summary_counts_by_topic_and_reason(run: Invoke) -> None:
    counts = {"invalid": 1, "unknown_schema": 1, "unreadable": 2}
    rows = [{"topic": "spanfold.traces", "reason": reason, "records": count} for reason, count in counts.items()]
    assert answer(run, "list", "--summary", "--limit", "1") == rows
    assert [line.split() for line in run("list", "--summary").stdout.splitlines()][3] == [
        "spanfold.traces",
        "unreadable",
        "2",
    ]
    assert run("list", "--summary", "--topic", "logs").stdout.split() == ["topic", "reason", "records", "nothing", "0"]


@pytest.mark.usefixtures("topics")
def test_status_counts_what_is_still_parked(invoke: Invoke, run: Invoke, ledger: Ledger) -> None:
    ledger.execute(
        "UPDATE spanfold_core.parked SET settled_as = 'discarded', settled_offset = 9 WHERE kafka_offset = 5"
    )
    said = json.loads(invoke("status", "--json").stdout)
    assert said["parked"] == {"invalid": 1, "unknown_schema": 1, "unreadable": 1}, said


# show


def test_what_can_be_read_is_shown(run: Invoke) -> None:
    shown = answer(run, "show", "spanfold.traces/0@3")
    assert shown == answer(run, "show", "traces/0@3")
    assert shown["decoded"]["event_type"] == "TraceCompleted"
    assert shown["decoded"]["error"] is None
    fields = shown["decoded"]["fields"]
    assert (fields["aggregate_id"], fields["status"], fields["end_time"]) == ("nul", "\0", NOW)
    assert fields["tags"] == {"n": "NaN", "\x1b[2J": 1}
    assert fields["event_id"] == shown["record"]["event_id"] == dict(shown["headers"])["event_id"]
    assert bytes.fromhex(shown["payload"]) == log()[3].value
    assert bytes.fromhex(shown["key"]) == b"nul"


def test_documents_are_shown_as_json_and_as_text_when_they_are_none() -> None:
    event = replace(SPAN, tags={"aa": 1}, resource={"a": [{"b": None}, 1.5]}, event_id=b"")
    value = Codec().encode(event.event_type, event.as_fields()).replace(b'{"aa":1}', b'{"aa":1 ')
    fields = decoded(value).fields
    assert fields
    assert (fields["tags"], fields["resource"], fields["events"]) == ('{"aa":1 ', {"a": [{"b": None}, 1.5]}, [])


def test_no_byte_of_a_record_moves_the_terminal(run: Invoke) -> None:
    done = run("show", "traces/0@3")
    assert "\x1b[2J" not in done.stdout
    assert "\0" not in done.stdout
    assert "NUL character in status" in done.stdout


def test_what_cannot_be_read_is_shown_byte_by_byte(run: Invoke) -> None:
    done = run("show", "traces/0@2")
    assert "unknown_schema: schema id 7 is unknown here" in done.stdout
    assert "Schema 7: unknown here" in done.stdout
    assert "00000000  00 00 00 00 07 3f 3f 3f  3f 3f 3f 3f 3f 3f 3f 3f  |.....???????????|" in done.stdout
    assert "000003f0  " in done.stdout
    assert "00000400  " not in done.stdout
    assert "… and 981 more bytes; --full shows them" in done.stdout
    whole = run("show", "traces/0@2", "--full").stdout
    assert whole.splitlines()[-1] == "000007d0  3f 3f 3f 3f 3f" + " " * 36 + "|?????|"


def test_of_broken_bytes_the_schema_is_known_and_of_none_nothing(run: Invoke) -> None:
    broken = answer(run, "show", "traces/0@1")["decoded"]
    assert (broken["event_type"], broken["fields"]) == ("TraceCompleted", None)
    assert broken["error"] == "unreadable: 1 bytes after the end of TraceCompleted"
    nothing = answer(run, "show", "traces/0@5")
    assert (nothing["payload"], nothing["decoded"]["event_type"]) == (None, None)
    assert "the record's value is null" in run("show", "traces/0@5").stdout


def test_of_an_erased_record_it_is_shown_that_nothing_is_left(run: Invoke, ledger: Ledger) -> None:
    store = Store(installed())
    store.commit(ledger, store.prepare(batch([erased("nul", 6)])))
    shown = answer(run, "show", "traces/0@3")
    assert (shown["record"]["state"], shown["key"], shown["headers"], shown["payload"]) == ("erased", None, None, None)
    done = run("show", "traces/0@3")
    assert done.exit_code == 0, done.output
    assert "erased at 6" in done.stdout
    assert done.stdout.splitlines()[-1] == "Its trace was erased: key, headers and payload are gone"
    assert "erased at 6" in run("list", "--state", "all").stdout


def test_hex_dumps_and_lines_are_what_terminals_can_show() -> None:
    assert list(hex_dump(b"")) == []
    assert list(hex_dump(b"\x1f ~\x7f")) == ["00000000  1f 20 7e 7f" + " " * 39 + "|. ~.|"]
    assert one_line({"a": "b\u2028"}) == '{"a":"b\\u2028"}'
    assert one_line("ü 🜁") == "ü 🜁"


# What is wrong is explained


MISTAKES: dict[tuple[str, ...], str] = {
    ("show", "traces/0@0"): "spanfold.traces/0@0 is not parked: that record was accepted and folded",
    ("show", "traces/0@4"): "is not parked: that record was rejected as duplicate; rejected records can't be retried",
    ("retry", "traces/0@1", "traces/0@77", "--yes"): "spanfold.traces/0@77 is not parked: no record there is known",
    ("discard", "traces/3@1", "--yes"): "`spanfold parked list` shows the parked records",
    ("show", "traces@1"): "position 'traces@1': expected topic/partition@offset, such as spanfold.traces/2@41",
    ("list", "--topic", "spam"): "unknown topic spam; expected one of spanfold.logs, spanfold.metrics, "
    "spanfold.services, spanfold.traces",
    ("list", "--since", "noon"): "--since: expected a time",
    ("retry", "--yes"): "choose records in exactly one way",
    ("retry", "--all", "--reason", "invalid", "--yes"): "choose records in exactly one way",
    ("discard", "traces/0@1", "--topic", "traces", "--yes"): "choose records in exactly one way",
    ("discard", "--all"): "no terminal to confirm; pass --yes",
}  # fmt: skip


def test_wrong_use_is_explained_and_does_nothing(run: Invoke) -> None:
    for words, complaint in MISTAKES.items():
        assert complaint in refusal(run(*words)), words
    assert len(answer(run, "list")) == 4


def test_a_reason_that_there_is_not_is_wrong_usage(run: Invoke) -> None:
    assert run("list", "--reason", "ugly").exit_code == 2


@pytest.mark.usefixtures("topics")
def test_where_nothing_is_chosen_nothing_is_done(run: Invoke) -> None:
    done = run("retry", "--reason", "refused")
    assert (done.exit_code, done.stdout) == (0, "nothing to do: no parked record matches\n")


@pytest.mark.usefixtures("topics")
def test_who_says_no_is_obeyed(run: Invoke) -> None:
    done = run("discard", "--reason", "unreadable", stdin="\n")
    assert done.exit_code == 1
    assert "Discard for ever: 2 records? [y/N]" in done.stderr
    assert len(answer(run, "list")) == 4


# Facts, where no worker is


def at_home(offset: int) -> bool:
    """Whether the record's key belongs to partition 0 also of the topic on the broker."""
    return int(partitions_of([log()[offset].key or b""], 4)[0]) == 0


@pytest.mark.usefixtures("topics")
def test_who_does_not_wait_is_told_how_many_facts_there_are(run: Invoke) -> None:
    assert at_home(HOME)
    outcome = answer(run, "retry", f"traces/0@{HOME}", "--yes", "--no-wait")
    assert outcome == {
        "appended": 1, "remarks": [], "retried": None, "discarded": None, "erased": None, "still_parked": None,
    }  # fmt: skip
    assert run("retry", f"traces/0@{HOME}", "--yes", "--no-wait").stdout.startswith("1 event appended; ")


@pytest.mark.usefixtures("topics")
def test_who_waits_in_vain_is_told_what_is_behind(run: Invoke, ledger: Ledger) -> None:
    ledger.execute("UPDATE spanfold_core.checkpoints SET next_offset = 0")
    done = run("discard", f"traces/0@{HOME}", "--yes", "--timeout", "6")
    assert "partition 0 of spanfold.traces is folded up to offset 0 of 1" in refusal(done, StoreUnavailable)


@pytest.mark.usefixtures("topics")
def test_what_passed_and_is_still_parked_says_why(run: Invoke) -> None:
    # the checkpoints are beyond the fact already: this is what a fact in vain looks like
    done = run("retry", f"traces/0@{HOME}", "--yes")
    assert done.exit_code == 1
    assert done.stdout.startswith("0 records retried and folded, 1 still parked\n")


@pytest.mark.usefixtures("topics")
def test_a_fact_that_does_not_come_to_its_record_is_an_error(run: Invoke) -> None:
    # these tables say that the topic has one partition; on the broker it has four
    assert not at_home(AWAY)
    wrong = refusal(run("retry", f"traces/0@{AWAY}", "--yes"), Misconfigured)
    assert f"the fact about spanfold.traces/0@{AWAY} went to partition " in wrong


def test_a_database_without_read_models_says_what_to_do(run: Invoke, servers: Any) -> None:
    empty = servers.postgres_dsn.rsplit("/", 1)[0] + "/template1"
    assert "spanfold migrate" in refusal(run("list", SPANFOLD_POSTGRES_DSN=empty), Misconfigured)


def test_a_postgres_that_does_not_answer_is_worth_another_try(run: Invoke) -> None:
    away = "postgresql://nobody:secret@127.0.0.1:1/nothing"
    assert "secret" not in refusal(run("list", SPANFOLD_POSTGRES_DSN=away), StoreUnavailable)
