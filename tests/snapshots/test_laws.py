"""Snapshots and the log's tail say what the whole log says: wherever the cut is, and whatever the policy was."""

import math
from collections.abc import Sequence
from typing import Any

import psycopg
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spanfold.application.aggregates import AggregateState, TraceAggregate
from spanfold.language.events import TraceEvent
from spanfold.language.settings import Settings
from spanfold.language.snapshot_policy import SnapshotPolicy
from spanfold.language.topics import TRACES
from spanfold.postgres.engine import engine_of
from spanfold.projections.commit.batch import Batch
from spanfold.projections.commit.reading import read
from spanfold.projections.commit.store import Store
from spanfold.projections.commit.verdicts import judge
from spanfold.projections.generation_states import GenerationState
from spanfold.projections.generations import lifecycle
from spanfold.projections.generations.shadow import Shadow
from spanfold.projections.projection import installed, why_not_from_states
from spanfold.projections.states import Folding, StateStore
from spanfold.projections.states.reading import states_of
from spanfold.projections.traces import PROJECTION
from spanfold.projections.traces.fold import fold
from spanfold.projections.traces.states import from_states
from spanfold.schemas.codec import Codec
from tests.support.databases import Ledger
from tests.support.single_events import span
from tests.support.strategies import Record, batch, calls, logs, record, rerecorded, rooted
from tests.support.trace_rows import empty

policies = st.builds(
    SnapshotPolicy,
    quiet_s=st.sampled_from([0.0, 1.0, 1e9]),
    every_records=st.sampled_from([1, 2, 1000]),
    at_least_every_s=st.sampled_from([0.0, 3600.0]),
)


def test_these_claim_it_and_the_others_say_why_not() -> None:
    said = {name: why_not_from_states(projection) for name, projection in installed().items()}
    assert said == {
        "logs": "its rows are no function of the states of aggregates",
        "metrics": "its rows are no function of the states of aggregates",
        "services": "its rows are no function of the states of aggregates",
        "traces": None,
    }


def test_a_state_has_the_rows_of_its_events_also_with_numbers_that_json_lacks() -> None:
    odd = {"name": "n", "time": 1, "attributes": {"up": math.inf, "all": [math.nan]}}
    event = span(events=(odd,), links=({"trace_id": "t", "span_id": "s", "attributes": {"down": -math.inf}},))
    state = TraceAggregate.evolve_all(TraceAggregate.initial(event.aggregate_id), [(event, 1)])
    facts = read(judge(batch([record(event)])), Codec(), {})
    assert from_states([AggregateState(event.aggregate_id, 1, state)]) == fold(facts)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(log=logs() | logs(events=calls | rerecorded | rooted), policy=policies, data=st.data())
def test_snapshots_and_tail_are_the_whole_log(
    stack_settings: Settings,
    ledger: Ledger,
    log: tuple[list[TraceEvent], list[Record], list[Batch]],
    policy: SnapshotPolicy,
    data: st.DataObject,
) -> None:
    _, written, batches = log
    _forget(ledger)
    store, states = Store(installed()), StateStore([Folding(TraceAggregate, policy)])
    states.register(ledger)
    for each in batches:
        store.commit(ledger, store.prepare(each))
    reached = data.draw(st.integers(0, len(batches)), label="batches in the states")
    for each in batches[:reached]:
        states.commit(ledger, states.prepare(each))
        if data.draw(st.booleans(), label="snapshots now"):
            states.take_due(ledger, TRACES.name, 0, everything=True)
    generation = _loaded(stack_settings, ledger, states, batches[reached:])
    for table in PROJECTION.metadata.sorted_tables:
        assert _rows(ledger, f"traces_g{generation}.{table.name}") == _rows(ledger, f"traces_g1.{table.name}")
    assert len(written) == sum(map(len, batches))


def _forget(ledger: Ledger) -> None:
    empty(ledger)
    ledger.execute("TRUNCATE spanfold_core.states, spanfold_core.snapshots")
    ledger.execute("DELETE FROM spanfold_core.checkpoints WHERE projection = 'snapshots' OR generation > 1")
    for (schema,) in ledger.execute(
        "SELECT schema_name FROM spanfold_core.generations WHERE generation > 1"
    ).fetchall():
        ledger.execute(f'DROP SCHEMA "{schema}" CASCADE'.encode())
    ledger.execute("DELETE FROM spanfold_core.generations WHERE generation > 1")


def _loaded(settings: Settings, ledger: Ledger, states: StateStore, tail: Sequence[Batch]) -> int:
    """The number of a generation that was loaded from the states, and the batches behind them."""
    assert settings.postgres_dsn
    engine = engine_of(settings.postgres_dsn)
    with engine.begin() as connection:
        generation = lifecycle.create_generation(connection, PROJECTION, GenerationState.LOADING)
    shadow, place = Shadow(PROJECTION, generation.number, generation.schema), states.folded_partition(TRACES.name, 0)
    with (
        psycopg.connect(settings.postgres_dsn, autocommit=True) as reading,
        states_of(reading, TraceAggregate, place) as standing,
    ):
        shadow.commit_states(ledger, place, standing)
    for each in tail:
        shadow.commit(ledger, shadow.prepare(each))
    return generation.number


def _rows(ledger: Ledger, table: str) -> list[Any]:
    return sorted(text for (text,) in ledger.execute(f"SELECT t::text FROM {table} t".encode()))
