"""as-of shows what the live tables showed when their checkpoints stood exactly there."""

import random
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from spanfold.kafka.log_ends import ends_of_log
from spanfold.language.errors import InvalidInput, Misconfigured
from spanfold.language.settings import Settings
from spanfold.language.times import as_us
from spanfold.language.topics import TRACES, TopicOnBroker
from spanfold.projections.commit.store import Store
from spanfold.projections.generations.shadow import next_offsets_of
from spanfold.projections.projection import installed
from spanfold.stream_processors.rebuild import as_of_schemas as past
from spanfold.stream_processors.rebuild import rebuild as rebuilding
from spanfold.stream_processors.rebuild.log_reader import LogReader, OffsetRange
from tests.support.databases import Ledger
from tests.support.generations import at_work
from tests.support.publishing import publish_mixed

pytestmark = pytest.mark.usefixtures("topics")

Positions = Mapping[tuple[str, int], int]


def fold_live(ledger: Ledger, settings: Settings, topics: Mapping[str, TopicOnBroker], until: Positions) -> None:
    """Fold as a worker does, exactly up to these positions."""
    store, at = Store(installed()), next_offsets_of(ledger, "journal", 0)
    ranges = [
        OffsetRange(topics[name], partition, at[name, partition], end) for (name, partition), end in until.items()
    ]
    with LogReader(settings) as reader:
        for batch in reader.batches(ranges):
            store.commit(ledger, store.prepare(batch))


def shown(ledger: Ledger, schema: str) -> dict[str, list[Any]]:
    """All rows of the projections' views in this schema."""
    views = [view.name for projection in installed().values() for view in projection.views]
    return {
        view: ledger.execute(f"SELECT v::text FROM {schema}.{view} v ORDER BY 1".encode()).fetchall() for view in views
    }


def test_as_of_five_positions_is_what_live_showed_there(
    stack_settings: Settings, ledger: Ledger, topics: dict[str, TopicOnBroker]
) -> None:
    publish_mixed(stack_settings, 6000)
    ends = ends_of_log(stack_settings)
    rng, dumps, before = random.Random(5), [], dict.fromkeys(ends, 0)
    for step in range(5):
        until = {at: rng.randint(before[at], end) if step < 4 else end for at, end in ends.items()}
        fold_live(ledger, stack_settings, topics, until)
        dumps.append((until, shown(ledger, "spanfold")))
        before = until
    assert len({str(dump) for _, dump in dumps}) == 5

    for number, (until, dump) in enumerate(dumps):
        into = f"past_{number}"
        past.create_schema(str(stack_settings.postgres_dsn), into, "positions")
        for name in installed():
            with at_work(stack_settings, name) as context:
                wanted = {at: end for at, end in until.items() if at in context.judged()}
                rebuilding.as_of(context, into, past.offsets_for(context, wanted), workers=1)
        assert shown(ledger, into) == dump
        assert sorted(past.drop_schema(str(stack_settings.postgres_dsn), into)) == sorted(installed())
    gone = ledger.execute("SELECT FROM pg_namespace WHERE nspname LIKE 'past%'").fetchall()
    assert not gone
    assert shown(ledger, "spanfold") == dumps[-1][1]


def test_a_time_means_what_the_broker_had_before_it(
    stack_settings: Settings, ledger: Ledger, topics: dict[str, TopicOnBroker]
) -> None:
    publish_mixed(stack_settings, 500)
    between = datetime.now(UTC)
    publish_mixed(stack_settings, 500, seed=2)
    with at_work(stack_settings) as context:
        found = {(TRACES.name, at): end for (_, at), end in past.offsets_at(context, as_us(between)).items()}
    with LogReader(stack_settings) as reader:
        ranges = [OffsetRange(topics[TRACES.name], at, 0, end) for (_, at), end in found.items()]
        times = [ms for batch in reader.batches(ranges) for ms in batch.log_times_ms]
    assert times
    assert max(times) < between.timestamp() * 1000
    with at_work(stack_settings) as context, pytest.raises(Misconfigured, match="have not reached this"):
        rebuilding.as_of(context, "early", found, workers=1)


def test_what_cannot_be_is_refused_and_leaves_nothing(stack_settings: Settings, ledger: Ledger) -> None:
    dsn = str(stack_settings.postgres_dsn)
    for name in ("spanfold", "Not a name", "pg_x", "1st"):
        with pytest.raises(InvalidInput, match=r"schema|name"):
            past.create_schema(dsn, name, "")
    with pytest.raises(InvalidInput, match="public is not a schema that"):
        past.drop_schema(dsn, "public")
    with at_work(stack_settings) as context, pytest.raises(InvalidInput, match=r"spanfold\.traces/1@"):
        past.offsets_for(context, {(TRACES.name, 0): 0})
