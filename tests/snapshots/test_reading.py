"""All states of a partition at one position, as what a generation is loaded from."""

import time
from collections.abc import Sequence
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from spanfold.application.aggregates import AggregateState, TraceAggregate
from spanfold.language.errors import Misconfigured
from spanfold.language.settings import Settings
from spanfold.language.topics import TRACES
from spanfold.postgres.engine import engine_of
from spanfold.projections.commit.store import Store
from spanfold.projections.generation_states import GenerationState
from spanfold.projections.generations import lifecycle
from spanfold.projections.generations.shadow import Shadow
from spanfold.projections.projection import installed
from spanfold.projections.states import reading
from spanfold.projections.states.reading import states_of
from spanfold.projections.states.rows import FoldedPartition
from spanfold.projections.traces import PROJECTION, TracesPartial, TracesProjection
from tests.support.databases import Ledger
from tests.support.stores import OF_TOMORROW, states_with
from tests.support.strategies import batch
from tests.support.ten_traces import LOG

WHERE = FoldedPartition(TRACES, 0, TraceAggregate.fold_version)


@pytest.fixture
def kept(ledger: Ledger) -> Ledger:
    """With the states of ten traces, three of which are snapshots."""
    states, store = states_with(ledger), Store(installed())
    for part in (batch(LOG[:12]), batch(LOG[12:])):
        store.commit(ledger, store.prepare(part))
        states.commit(ledger, states.prepare(part))
        if part.end == 12:
            states.take_due(ledger, TRACES.name, 0, everything=True)
    return ledger


def load(settings: Settings, dsn: str) -> tuple[int, str]:
    """Load a generation from the states, over connections of this DSN. How many there were, and its schema."""
    engine = engine_of(str(settings.postgres_dsn))
    with engine.begin() as connection:
        generation = lifecycle.create_generation(connection, PROJECTION, GenerationState.LOADING)
    shadow = Shadow(PROJECTION, generation.number, generation.schema)
    with (
        psycopg.connect(dsn, autocommit=True) as writing,
        psycopg.connect(dsn, autocommit=True) as states,
        states_of(states, TraceAggregate, WHERE) as standing,
    ):
        return shadow.commit_states(writing, WHERE, standing), generation.schema


def rows(ledger: Ledger, schema: str) -> dict[str, list[Any]]:
    """The sorted rows of each of the generation's tables."""
    tables = [table.name for table in PROJECTION.metadata.sorted_tables]
    query = "SELECT t::text FROM {}.{} t ORDER BY 1"
    return {name: ledger.execute(query.format(schema, name).encode()).fetchall() for name in tables}


def test_no_more_states_are_read_at_once_than_their_bytes_allow(
    kept: Ledger, stack_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "AT_ONCE_BYTES", 1_000)
    sizes = dict(
        kept.execute(
            "SELECT aggregate_id, octet_length(state) FROM spanfold_core.states UNION ALL "
            "SELECT aggregate_id, octet_length(state) FROM spanfold_core.snapshots"
        ).fetchall()
    )
    with (
        psycopg.connect(str(stack_settings.postgres_dsn), autocommit=True) as connection,
        states_of(connection, TraceAggregate, WHERE) as standing,
    ):
        batches = [[sizes[each.aggregate_id] for each in states] for states in standing.batches]
    assert len(sizes) == sum(map(len, batches)) == 10
    assert all(sum(batch[:-1]) < 1_000 for batch in batches), batches
    assert all(sum(batch) >= 1_000 for batch in batches[:-1]), batches
    assert len(batches) > 2


def test_a_fold_that_takes_its_time_loses_no_session(
    kept: Ledger, stack_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    impatient = make_conninfo(str(stack_settings.postgres_dsn), options="-c idle_in_transaction_session_timeout=2s")
    fold, pauses_s = TracesProjection.from_states, iter([4.0])

    def slowly(self: TracesProjection, states: Sequence[AggregateState]) -> TracesPartial:
        time.sleep(next(pauses_s, 0))
        return fold(self, states)

    monkeypatch.setattr(reading, "AT_ONCE", 4)
    monkeypatch.setattr(TracesProjection, "from_states", slowly)
    count, schema = load(stack_settings, impatient)
    assert count == 10
    assert rows(kept, schema) == rows(kept, "traces_g1")


def test_a_state_that_can_not_be_read_is_made_again_from_its_events(kept: Ledger, stack_settings: Settings) -> None:
    for table in ("states", "snapshots"):
        kept.execute(f"UPDATE spanfold_core.{table} SET state = %s".encode(), (OF_TOMORROW,))
    count, schema = load(stack_settings, str(stack_settings.postgres_dsn))
    assert count == 10
    assert rows(kept, schema) == rows(kept, "traces_g1")


def test_where_its_events_are_gone_nothing_is_loaded(kept: Ledger, stack_settings: Settings) -> None:
    kept.execute("UPDATE spanfold_core.states SET state = %s WHERE aggregate_id = 'trace 9'", (OF_TOMORROW,))
    kept.execute("INSERT INTO spanfold_core.journal_retention VALUES ('spanfold.traces', 0, 1, '2026-01-01')")
    with pytest.raises(
        Misconfigured,
        match=r"state of trace 9 in spanfold\.traces can't be read here .* no longer has all of its events",
    ):
        load(stack_settings, str(stack_settings.postgres_dsn))
    assert kept.execute("SELECT count(*) FROM traces_g2.traces").fetchone() == (0,)
