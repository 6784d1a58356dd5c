"""Rebuilds and comparisons during which a trace is erased."""

from collections.abc import Mapping

import pytest

from spanfold.language.events import DomainEvent, TraceErased
from spanfold.language.positions import NextOffsets
from spanfold.language.settings import Settings
from spanfold.language.topics import TRACES, TopicOnBroker
from spanfold.producers.publisher import TelemetryPublisher
from spanfold.projections.commit.store import Store
from spanfold.projections.generation_states import GenerationState
from spanfold.projections.generations import lifecycle
from spanfold.projections.generations.lifecycle import GenerationRow
from spanfold.projections.generations.shadow import next_offsets_of
from spanfold.projections.projection import installed
from spanfold.stream_processors.rebuild.compare import compare_with_live
from spanfold.stream_processors.rebuild.generation_loader import GenerationLoader
from spanfold.stream_processors.rebuild.log_reader import LogReader, OffsetRange
from spanfold.stream_processors.rebuild.rebuild_context import RebuildContext
from tests.erasure.long_trace import NOW, TRACE, others, story
from tests.support.databases import Ledger
from tests.support.erasure import tables_with
from tests.support.generations import at_work

pytestmark = pytest.mark.usefixtures("topics")

Topics = Mapping[str, TopicOnBroker]


class Live:
    """Publishes, and folds as a worker does up to the end of the log."""

    def __init__(self, ledger: Ledger, settings: Settings, topics: Topics) -> None:
        self._ledger, self._settings, self._topics = ledger, settings, topics
        self._store = Store(installed())

    def publish(self, *events: DomainEvent) -> None:
        with TelemetryPublisher(self._settings) as publisher:
            for event in events:
                publisher.publish(event)
            assert publisher.flush(30) == 0
        self.fold()

    def erase(self) -> None:
        with TelemetryPublisher(self._settings) as publisher:
            publisher.publish_and_wait(TraceErased(aggregate_id=TRACE, occurred_at=NOW, source="test"), topic=TRACES)
        self.fold()

    def fold(self) -> None:
        topic, at = self._topics[TRACES.name], next_offsets_of(self._ledger, "journal", 0)
        with LogReader(self._settings) as reader:
            ranges = [
                OffsetRange(topic, partition, at[TRACES.name, partition], reader.watermarks(topic.name, partition)[1])
                for partition in range(topic.partitions)
            ]
            for batch in reader.batches(ranges):
                self._store.commit(self._ledger, self._store.prepare(batch))


class Interrupted(GenerationLoader):
    """While it loads for the first time, a trace is erased."""

    live: Live | None = None
    loads = 0

    def load(self, until: NextOffsets) -> int:
        self.loads += 1
        if self.loads == 1 and self.live is not None:
            self.live.erase()
        return super().load(until)


def new_generation(context: RebuildContext) -> GenerationRow:
    with context.engine.begin() as connection:
        return lifecycle.create_generation(connection, context.projection, GenerationState.LOADING)


def test_a_comparison_during_which_a_trace_is_erased_is_made_again(
    stack_settings: Settings, ledger: Ledger, topics: Topics
) -> None:
    live = Live(ledger, stack_settings, topics)
    live.publish(*(event for event in [*others(300, 1), *story()] if event.home == TRACES))
    with at_work(stack_settings) as context:
        row, rebuilt = context.newest(GenerationState.LIVE), new_generation(context)
        assert row
        with Interrupted(context, rebuilt, 0) as loading:
            loading.live = live
            parity = compare_with_live(context, loading, row, rebuilt)
            assert loading.loads == 2
    assert [each.table for each in parity if not each.equal] == []
    assert tables_with(ledger, TRACE) == []


def test_a_generation_that_has_the_trace_already_loses_it_where_it_passes_the_fact(
    stack_settings: Settings, ledger: Ledger, topics: Topics
) -> None:
    live = Live(ledger, stack_settings, topics)
    live.publish(*(event for event in [*others(300, 1), *story()[:9]] if event.home == TRACES))
    with at_work(stack_settings) as context:
        row, rebuilt = context.newest(GenerationState.LIVE), new_generation(context)
        assert row
        with GenerationLoader(context, rebuilt, 0) as loading:
            loading.load(context.judged())
            assert f"{rebuilt.schema}.spans" in tables_with(ledger, TRACE)
            live.publish(*(event for event in [*story(), *others(100, 2)] if event.home == TRACES))
            live.erase()
            assert tables_with(ledger, TRACE) == [f"{rebuilt.schema}.spans", f"{rebuilt.schema}.traces"]
            parity = compare_with_live(context, loading, row, rebuilt)
    assert [each.table for each in parity if not each.equal] == []
    assert tables_with(ledger, TRACE) == []
