"""`verify` proves parity at one position, and names the rows that differ."""

import os
from collections.abc import Sequence
from typing import Any

import pytest

from spanfold.kafka.log_ends import ends_of_log
from spanfold.language.settings import Settings
from spanfold.language.topics import TRACES, TopicOnBroker
from spanfold.projections.commit.journal import JOURNAL
from spanfold.projections.commit.store import Store
from spanfold.projections.facts import Fact
from spanfold.projections.generations.shadow import next_offsets_of
from spanfold.projections.projection import installed
from spanfold.projections.traces import TracesPartial, TracesProjection
from spanfold.stream_processors.rebuild import rebuild as rebuilding
from spanfold.stream_processors.rebuild.compare import RowsDiffer
from spanfold.stream_processors.rebuild.log_reader import LogReader, OffsetRange
from tests.support import other_versions
from tests.support.commands import command
from tests.support.databases import Ledger
from tests.support.generations import NOTHING, at_work, leftovers, states
from tests.support.publishing import publish, publish_mixed
from tests.support.tables import rows
from tests.support.workers import Start, Worker, folded

pytestmark = pytest.mark.usefixtures("forkserver")

EVENTS = int(os.environ.get("SPANFOLD_TEST_EVENTS", "20000"))


class Carelessly(TracesProjection):
    """A fold that was changed, without saying so."""

    def fold(self, facts: Sequence[Fact]) -> TracesPartial:
        partial = super().fold(facts)
        for trace in partial.traces.values():
            trace.error_count = 0
        return partial


def test_a_rebuild_equals_live_after_a_mixed_load(stack_settings: Settings, ledger: Ledger, start: Start) -> None:
    older = start(program=other_versions.program("without_spans"), parked_share_limit=1.0)
    publish(stack_settings, 500, seed=2)
    folded(ledger, stack_settings, older)
    assert older.stop() == 0
    publish_mixed(stack_settings, EVENTS)
    worker = start()
    folded(ledger, stack_settings, worker)
    retried = command(stack_settings, "parked", "retry", "--reason", "unknown_schema", "--yes")
    assert retried.returncode == 1, retried.stderr  # some have schemas that nobody knows, and stay parked
    given_up = command(stack_settings, "parked", "discard", "--reason", "unknown_schema", "--limit", "1", "--yes")
    assert given_up.returncode == 0, given_up.stderr
    folded(ledger, stack_settings, worker)
    before = rows(ledger)
    counted = dict(ledger.execute("SELECT state, count(*) FROM spanfold.parked_records GROUP BY 1").fetchall())
    assert {"parked", "retried", "discarded"} <= counted.keys(), counted
    for name in installed():
        with at_work(stack_settings, name) as context:
            result = rebuilding.rebuild(context, 2)
        assert all(each.equal for each in result.parity), result.parity
        print(name, result.records, "records", f"{result.load_s:.1f} s", [each.live_rows for each in result.parity])
    assert rows(ledger) == before
    for name in installed():
        with at_work(stack_settings, name) as context:
            assert all(each.equal for each in rebuilding.verify(context, 2).parity)
    assert leftovers(ledger) == NOTHING


def test_a_changed_fold_shows_by_row_and_column(stack_settings: Settings, ledger: Ledger, folding: Worker) -> None:
    before, stood = rows(ledger), states(ledger)
    with at_work(stack_settings, Carelessly()) as context:
        found = {each.table: each for each in rebuilding.verify(context, 1).parity}
    wrong = found["traces"]
    assert not wrong.equal
    assert wrong.live_rows == wrong.rebuilt_rows
    assert 0 < len(wrong.differences) <= 20
    for each in wrong.differences:
        (row,) = ledger.execute(
            "SELECT error_count FROM spanfold.traces WHERE trace_id = %s", (each.key["trace_id"],)
        ).fetchall()
        assert (each.column, each.live, each.rebuilt) == ("error_count", row[0], 0)
    assert all(each.equal for name, each in found.items() if name != "traces")
    with at_work(stack_settings, Carelessly()) as context, pytest.raises(RowsDiffer, match="traces"):
        rebuilding.rebuild(context, 1)
    assert (rows(ledger), states(ledger)[: len(stood)]) == (before, stood[: len(stood)])
    with at_work(stack_settings, Carelessly()) as context:
        assert rebuilding.abort(context)
    assert states(ledger) == stood
    assert leftovers(ledger) == NOTHING


def test_a_damaged_table_shows_and_a_rebuild_heals_it(
    stack_settings: Settings, ledger: Ledger, folding: Worker
) -> None:
    before = rows(ledger)
    ledger.execute("DELETE FROM traces_g1.spans WHERE version = (SELECT max(version) FROM traces_g1.spans)")
    ledger.execute("INSERT INTO traces_g1.spans SELECT * FROM traces_g1.spans ORDER BY trace_id, version LIMIT 1")
    ledger.execute(
        "UPDATE traces_g1.traces SET service_name = 'x' WHERE trace_id = (SELECT min(trace_id) FROM traces_g1.traces)"
    )
    with at_work(stack_settings) as context:
        found = {each.table: each for each in rebuilding.verify(context, 1).parity}
    said = [str(each) for table in found.values() for each in table.differences]
    assert any("only in the live rows" in words for words in said), said
    assert any("only in the rebuilt rows" in words for words in said), said
    assert any("service_name is 'x', rebuilt" in words for words in said), said
    with at_work(stack_settings) as context:
        rebuilding.rebuild(context, 1, accept_differences=True)
    assert rows(ledger) == before


def test_a_batch_that_was_prepared_before_the_swap_is_in_the_new_generation_once(
    stack_settings: Settings, ledger: Ledger, topics: dict[str, TopicOnBroker]
) -> None:
    publish_mixed(stack_settings, 2000)
    store, ends = Store(installed()), ends_of_log(stack_settings)
    topic = topics[TRACES.name]
    held: list[Any] = []
    with LogReader(stack_settings) as reader:
        for partition in range(topic.partitions):
            end = ends[TRACES.name, partition]
            for start, until in ((0, end // 2), (end // 2, end)):
                for batch in reader.batches([OffsetRange(topic, partition, start, until)]):
                    prepared = store.prepare(batch)
                    if start == 0:
                        store.commit(ledger, prepared)
                    else:
                        held.append(prepared)
    with at_work(stack_settings) as context:
        rebuilding.rebuild(context, 1)
    assert ("traces", 2, "live") in states(ledger)
    for prepared in held:
        assert not any(outcome.fenced for outcome in store.commit(ledger, prepared))
        assert all(outcome.fenced for outcome in store.commit(ledger, prepared))
    assert next_offsets_of(ledger, "traces", 2) == {
        at: end for at, end in next_offsets_of(ledger, JOURNAL, 0).items() if at[0] == TRACES.name
    }
    with at_work(stack_settings) as context:
        assert all(each.equal for each in rebuilding.verify(context, 1).parity)
