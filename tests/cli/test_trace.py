"""`spanfold trace`: what it folds from the journal is what the workers fold into the tables, now and at every checkpoint."""

import random
from functools import partial
from typing import Any

import pytest
from psycopg.rows import dict_row
from typer.testing import Result

from spanfold.cli.waterfall import Bar, as_tree, head_line, waterfall
from spanfold.language.errors import InvalidInput
from spanfold.language.events import RecordDiscarded, RecordRetried, SpanRecorded, TraceCompleted, TraceCreated
from spanfold.language.json_values import time_text, time_us
from spanfold.language.settings import Settings
from spanfold.operations.trace import UnknownTrace
from spanfold.projections.commit.store import Store
from spanfold.projections.projection import installed
from tests.support.commands import Invoke, answer
from tests.support.databases import Ledger
from tests.support.load import Load
from tests.support.stores import commit_records as commit
from tests.support.stores import older
from tests.support.strategies import LOG_TIME_MS, NOW, record
from tests.support.waiting import until
from tests.support.workers import Start, folded


@pytest.fixture
def run(invoke: Invoke) -> Invoke:
    return partial(invoke, "trace", COLUMNS="200")


# As the tables have it


def shown(ledger: Ledger, view: str, **where: Any) -> list[dict[str, Any]]:
    """Rows of a public view, times as `spanfold trace --json` writes them."""
    with ledger.cursor(row_factory=dict_row) as cursor:
        condition = " AND ".join(f"{name} = %({name})s" for name in where) or "true"
        cursor.execute(f"SELECT * FROM spanfold.{view} WHERE {condition}".encode(), where)
        rows = cursor.fetchall()
    times = ("start_time", "end_time", "last_event_at")
    return [
        row | {name: time_text(time_us(row[name].isoformat(), name)) for name in times if row.get(name)} for row in rows
    ]


def by_version(spans: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(spans, key=lambda span: span["version"])


Snapshot = tuple[dict[int, int], dict[str, dict[str, Any]]]
"""Where the live traces stood in each partition, and their rows by id."""


def snapshot(ledger: Ledger) -> Snapshot:
    with ledger.transaction():
        ledger.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        stood = ledger.execute(
            "SELECT partition, next_offset FROM spanfold.checkpoints WHERE projection = 'traces' AND live"
        )
        return dict(stood.fetchall()), {row["trace_id"]: row for row in shown(ledger, "traces")}


def standing_at(ledger: Ledger, least: int) -> Snapshot | None:
    """A snapshot in which at least so many offsets have been folded."""
    found = snapshot(ledger)
    return found if sum(found[0].values()) >= least else None


@pytest.mark.timeout(600)
def test_what_it_folds_is_what_the_tables_have_and_had(
    stack_settings: Settings, ledger: Ledger, start: Start, run: Invoke
) -> None:
    worker, load, rng = start(batch_records=500), Load(stack_settings, 1, 6000, per_second=2000), random.Random(7)
    load.start()
    snapshots = [until(partial(standing_at, ledger, least), f"{least} records folded") for least in (800, 1600, 2400)]
    load.finish()
    folded(ledger, stack_settings, worker)
    home = dict(
        ledger.execute(
            "SELECT DISTINCT aggregate_id, partition FROM spanfold.journal WHERE topic = 'spanfold.traces'"
        ).fetchall()
    )
    now = {row["trace_id"]: row for row in shown(ledger, "traces")}
    for trace_id in rng.sample(sorted(now), 120):
        found = answer(run, trace_id)
        assert found["trace"] == now[trace_id]
        assert by_version(found["spans"]) == by_version(shown(ledger, "spans", trace_id=trace_id))
    for stood, rows in snapshots:
        for trace_id in rng.sample(sorted(rows), min(40, len(rows))):
            at = str(stood[home[trace_id]])
            assert answer(run, trace_id, "--as-of", at)["trace"] == rows[trace_id], (trace_id, at)
        unseen = [trace_id for trace_id in now if trace_id not in rows]
        for trace_id in rng.sample(unseen, min(5, len(unseen))):
            done = run(trace_id, "--as-of", str(stood[home[trace_id]]))
            assert isinstance(done.exception, UnknownTrace), done.output
    partly = [trace_id for _, rows in snapshots for trace_id, row in rows.items() if row != now[trace_id]]
    assert partly, "no trace was seen half folded: the snapshots came too late to tell anything"


def test_a_rejected_or_parked_record_of_a_mixed_load_is_told_and_not_folded(
    stack_settings: Settings, ledger: Ledger, start: Start, run: Invoke
) -> None:
    worker, load = start(), Load(stack_settings, 3, 4000, per_second=1000)
    load.start()
    load.finish()
    folded(ledger, stack_settings, worker)
    rejected = ledger.execute(
        "SELECT DISTINCT ON (verdict) aggregate_id, verdict FROM spanfold.verdicts WHERE topic = 'spanfold.traces' "
        "AND verdict <> 'accepted' AND aggregate_id IS NOT NULL"
    ).fetchall()
    parked = ledger.execute(
        "SELECT DISTINCT ON (reason, state) aggregate_id, state FROM spanfold.parked_records"
    ).fetchall()
    assert {"duplicate", "expired", "future", "misrouted"} <= {verdict for _, verdict in rejected}
    assert parked
    for trace_id, state in [*rejected, *parked]:
        done = run(trace_id, "--history")
        assert f"{state} (" in done.stdout, (trace_id, done.output)
        if not shown(ledger, "traces", trace_id=trace_id):
            assert isinstance(done.exception, UnknownTrace)
            assert state in str(done.exception) or "the log has" in str(done.exception)


# History

SAID: dict[str, Any] = {"aggregate_id": "t" * 32, "source": "test"}


def span(number: int, service: str, status: str = "ok", parent: int | None = None) -> SpanRecorded:
    begin = NOW + number * 1000
    return SpanRecorded(
        occurred_at=begin + 500, span_id=str(number), parent_span_id=None if parent is None else str(parent),
        service_name=service, operation_name="POST /charges", kind="server", status=status,
        start_time=begin, end_time=begin + 500, **SAID,
    )  # fmt: skip


STORY = (
    TraceCreated(
        occurred_at=NOW,
        service_name="shop",
        operation_name="checkout",
        start_time=NOW,
        tags={"user": 7, "n": 1},
        **SAID,
    ),
    span(1, "payments"),
    span(2, "bank", "error", parent=1),
    span(1, "payments"),
    TraceCompleted(occurred_at=NOW + 2000, end_time=NOW + 2000, tags={"n": 2}, **SAID),
)
PARKED = (1, 2)
"""Offsets that an older version can't read; the record at 3 is the one at 1 again."""


def fact(cls: type[RecordRetried] | type[RecordDiscarded], record_offset: int, offset: int) -> Any:
    event = cls(occurred_at=NOW + offset, record_topic="spanfold.traces", record_offset=record_offset, **SAID)
    return record(event, offset, log_time_ms=LOG_TIME_MS + offset * 1000)


@pytest.fixture
def story(ledger: Ledger) -> Ledger:
    """Spans parked by an older version; one retried at offset 5, one discarded at 6."""
    log = [record(event, offset, log_time_ms=LOG_TIME_MS + offset * 1000) for offset, event in enumerate(STORY)]
    commit(ledger, older(), log)
    commit(ledger, Store(installed()), [fact(RecordRetried, 1, 5), fact(RecordDiscarded, 2, 6)])
    return ledger


def test_each_record_says_what_it_changed(story: Ledger, run: Invoke) -> None:
    lines = run(SAID["aggregate_id"], "--history").stdout.partition("\nposition, ")[2].splitlines()[1:]
    assert len(lines) == 7
    at = [line.split("  ")[0] for line in lines]
    assert at == [f"spanfold.traces/0@{offset}" for offset in range(7)]
    assert "  TraceCreated  service_name: - → shop; operation_name: - → checkout; status: - → started; " in lines[0]
    assert "tags + n=1, user=7" in lines[0]
    assert "  SpanRecorded  retried (by spanfold.traces/0@5; unknown_schema: " in lines[1]
    assert "  SpanRecorded  discarded (by spanfold.traces/0@6; unknown_schema: " in lines[2]
    assert "  duplicate (its event id is in the journal, at spanfold.traces/0@1)" in lines[3]
    assert "  TraceCompleted  status: started → completed; end_time: - → 2026-" in lines[4]
    assert "duration_ms: - → 2.0; tags + n=2" in lines[4]
    assert "  RecordRetried  folds spanfold.traces/0@1  span_count 0 → 1; spans + payments POST /charges" in lines[5]
    assert lines[6].endswith("  RecordDiscarded")
    assert str(time_text(NOW)) in lines[0]
    assert str(time_text(LOG_TIME_MS * 1000)) in lines[0]


def test_history_as_json_ends_in_the_row_of_the_table(story: Ledger, run: Invoke) -> None:
    found = answer(run, SAID["aggregate_id"], "--history")
    assert found["trace"] == shown(story, "traces")[0]
    assert by_version(found["spans"]) == by_version(shown(story, "spans"))
    row = dict.fromkeys(found["trace"])
    for step in found["history"]:
        for name, (was, now) in step["changed"].items():
            assert row[name] == was
            row[name] = now
    assert row == found["trace"]
    assert [step["state"] for step in found["history"]] == [
        "folded", "retried", "discarded", "duplicate", "folded", "folded", "folded",
    ]  # fmt: skip
    assert [step["folds"] for step in found["history"] if step["kafka_offset"] in (1, 5)] == [
        [],
        ["spanfold.traces/0@1"],
    ]


def test_before_it_was_retried_a_record_was_parked(story: Ledger, run: Invoke) -> None:
    for limit in ("5", time_text(LOG_TIME_MS * 1000 + 5_000_000)):
        found = answer(run, SAID["aggregate_id"], "--history", "--as-of", str(limit))
        assert [step["state"] for step in found["history"]] == ["folded", "parked", "parked", "duplicate", "folded"]
        assert found["trace"]["span_count"] == 0
        assert found["trace"]["status"] == "completed"


def test_a_trace_is_a_head_its_counts_and_a_waterfall(story: Ledger, run: Invoke) -> None:
    head, counts, bar = run(SAID["aggregate_id"]).stdout.splitlines()
    assert head == f"shop checkout  2.0 ms  completed  {SAID['aggregate_id']}"
    assert counts.startswith("1 spans, 0 errors, 0 late; 2026-")
    assert counts.endswith("; version 5")
    assert bar.split()[:3] == ["payments", "POST", "/charges"]
    assert "━" in bar


# What there is not


def refusal(done: Result) -> str:
    assert isinstance(done.exception, UnknownTrace), done.output
    assert done.exception.exit_code == 1
    return str(done.exception)


def test_an_id_that_nobody_knows_is_explained(story: Ledger, run: Invoke) -> None:
    trace_id = SAID["aggregate_id"]
    assert "the journal has no record of it, nor of any that begins with it. If it was published just now" in refusal(
        run("x")
    )
    assert f"Did you mean {trace_id}?" in refusal(run(trace_id[:9]))
    assert f"Did you mean {trace_id}?" in refusal(run(trace_id.upper()))
    early = refusal(run(trace_id, "--as-of", "2001-01-01T00:00:00Z"))
    assert "before 2001-01-01T00:00:00.000000Z: its first record is spanfold.traces/0@0, in the log since" in early


def test_of_a_trace_that_is_only_parked_the_position_is_named(ledger: Ledger, run: Invoke) -> None:
    commit(ledger, older(), [record(span(1, "payments"), 0)])
    done = run(SAID["aggregate_id"], "--history")
    assert "the log has 1 record of it (spanfold.traces/0@0 SpanRecorded unknown_schema)" in refusal(done)
    assert "  SpanRecorded  parked (unknown_schema: " in done.stdout


def test_a_limit_that_is_neither_time_nor_offset_is_wrong_usage(story: Ledger, run: Invoke) -> None:
    done = run("x", "--as-of", "noon")
    assert isinstance(done.exception, InvalidInput)
    assert "--as-of: expected a time" in str(done.exception)


# The waterfall

BAR = Bar("1", None, "shop", "x" * 80, "server", "error", 0, 100_000)


def test_bars_stay_within_the_whole() -> None:
    late = Bar("2", "1", "bank", "pay\n", "server", "ok", 99_900, 100_000)
    first, second = (line.plain for line in waterfall([late, BAR]))
    assert (first.count("━"), second.count("━")) == (40, 1)
    assert first.endswith("100.0 ms")
    assert "…" in first
    assert "pay\\n" in second
    assert len(first) == len(second)
    assert list(waterfall([])) == []


def tree(*bars: tuple[str, str | None, str]) -> list[tuple[int, str]]:
    made = [
        Bar(span_id, parent, "s", f"{span_id}{at}", kind, "ok", at, at + 9)
        for at, (span_id, parent, kind) in enumerate(bars)
    ]
    return [(depth, bar.operation_name) for depth, bar in as_tree(made)]


def test_every_span_is_in_the_tree_once_whatever_its_parent_is() -> None:
    assert tree(("a", None, "server"), ("b", "a", "client"), ("c", "?", "server"), ("d", "b", "server")) == [
        (0, "a0"), (1, "b1"), (2, "d3"), (0, "c2"),
    ]  # fmt: skip
    # a ring, and one who is its own parent
    assert tree(("a", "b", "client"), ("b", "a", "client"), ("c", "c", "internal")) == [(0, "a0"), (1, "b1"), (0, "c2")]
    # Zipkin: what the server does stands under the server's half of the shared span
    assert tree(("a", None, "client"), ("a", None, "server"), ("b", "a", "internal")) == [
        (0, "a0"),
        (1, "a1"),
        (2, "b2"),
    ]


def test_a_trace_without_root_or_end_has_a_head_too() -> None:
    row = dict.fromkeys(("service_name", "operation_name", "duration_ms", "error"))
    assert (
        head_line({**row, "status": "started", "trace_id": "t"}).plain == "(no TraceCreated so far)  open  started  t"
    )
