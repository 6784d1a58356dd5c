"""States at their store: what is folded into them, when snapshots are due, and what becomes of those that can't be read."""

import time
from dataclasses import replace
from typing import Any

import pytest

from spanfold.application.aggregates import ServiceAggregate, TraceAggregate, TraceState
from spanfold.language.errors import Misconfigured
from spanfold.language.events import ServiceDeregistered, ServiceHealthChanged, ServiceRegistered, SpanRecorded
from spanfold.language.snapshot_policy import SnapshotPolicy
from spanfold.language.topics import SERVICES, TRACES
from spanfold.projections.commit.batch import Gap, Outcome
from spanfold.projections.commit.store import Store
from spanfold.projections.projection import installed
from spanfold.projections.states import Folding, NotJudgedYet, StateStore
from spanfold.schemas.batches import pack
from spanfold.schemas.catalogue import RegisteredSchema, committed
from spanfold.schemas.codec import Codec
from spanfold.schemas.snapshots import decode_state
from tests.support.databases import Ledger
from tests.support.stores import OF_TOMORROW, states_with
from tests.support.strategies import CODEC, LOG_TIME_MS, NOW, Record, batch, record
from tests.support.ten_traces import LOG, story

SECOND_MS = 1_000


@pytest.fixture
def store() -> Store:
    return Store(installed())


def counts(ledger: Ledger) -> tuple[int, int]:
    """How many aggregates are in no snapshot, and how many have one."""
    query = "SELECT (SELECT count(*) FROM spanfold_core.states), (SELECT count(*) FROM spanfold.snapshots)"
    return ledger.execute(query).fetchone()  # type: ignore[return-value]


def state_of(ledger: Ledger, trace_id: str) -> TraceState:
    query = """
        SELECT state FROM spanfold_core.states WHERE aggregate_id = %(id)s
         UNION ALL SELECT state FROM spanfold_core.snapshots WHERE aggregate_id = %(id)s
    """
    ((payload,),) = ledger.execute(query, {"id": trace_id}).fetchall()
    state: TraceState = decode_state(Codec(), TraceAggregate, payload)
    return state


# Whose turn it is


def test_a_batch_waits_until_all_of_it_is_judged(ledger: Ledger, store: Store) -> None:
    states = states_with(ledger)
    store.commit(ledger, store.prepare(batch(LOG[:7])))
    with pytest.raises(NotJudgedYet, match=r"spanfold.traces/0: judged up to 7, the batch ends at 40"):
        states.commit(ledger, states.prepare(batch(LOG)))
    assert counts(ledger) == (0, 0)
    store.commit(ledger, store.prepare(batch(LOG[7:])))
    assert states.commit(ledger, states.prepare(batch(LOG))) == [Outcome(folded=40)]
    assert states.commit(ledger, states.prepare(batch(LOG))) == [Outcome(fenced=True)]
    with pytest.raises(Gap):
        states.commit(ledger, states.prepare(batch([], start=41, end=50)))


def test_of_a_batch_that_overlaps_only_the_rest_is_folded(ledger: Ledger, store: Store) -> None:
    states = states_with(ledger)
    store.commit(ledger, store.prepare(batch(LOG)))
    states.commit(ledger, states.prepare(batch(LOG[:25])))
    assert states.commit(ledger, states.prepare(batch(LOG[10:]))) == [Outcome(folded=15)]
    assert ledger.execute("SELECT sum(records) FROM spanfold_core.states").fetchone() == (40,)


def test_what_is_rejected_or_parked_is_in_no_state_and_what_is_retried_is(ledger: Ledger, store: Store) -> None:
    states = states_with(ledger)
    spoilt = replace(LOG[1], value=b"?")
    log = [LOG[0], spoilt, replace(LOG[0], offset=2), *LOG[3:8]]
    store.commit(ledger, store.prepare(batch(log)))
    states.commit(ledger, states.prepare(batch(log)))
    assert (len(state_of(ledger, "trace 0").spans), counts(ledger)) == (1, (2, 0))
    # as if it had been repaired, and retried by the fact at offset 8
    ledger.execute(
        "UPDATE spanfold_core.parked SET payload = %s, settled_as = 'retried', settled_offset = 8", (LOG[1].value,)
    )
    ledger.execute("UPDATE spanfold_core.checkpoints SET next_offset = 9 WHERE projection = 'journal'")
    states.commit(ledger, states.prepare(batch([], start=8, end=9)))
    told = state_of(ledger, "trace 0")
    assert sorted(told.versions.values()) == [2, 4]


# A conditional topic


def service_log() -> list[Record]:
    said: dict[str, Any] = {"aggregate_id": "i", "source": "test"}
    where: dict[str, Any] = {"service_name": "shop", "host": "h", "port": 1, "health_check_url": "u"}
    registered = ServiceRegistered(occurred_at=NOW, **said, **where)
    healthy = ServiceHealthChanged(occurred_at=NOW + 1, status="healthy", **said)
    both = pack(
        [ServiceDeregistered(occurred_at=NOW + 2, **said), ServiceRegistered(occurred_at=NOW + 3, **said, **where)],
        CODEC,
    )
    return [record(event, offset) for offset, event in enumerate((registered, healthy, both))]


def test_records_of_a_conditional_topic_are_folded_by_version(ledger: Ledger, store: Store) -> None:
    states = states_with(ledger)
    log = replace(batch(service_log()), topic=SERVICES)
    store.commit(ledger, store.prepare(log))
    for part in log.split(2):
        states.commit(ledger, states.prepare(part))
    ((version, payload),) = ledger.execute("SELECT version, state FROM spanfold_core.states").fetchall()
    state = decode_state(Codec(), ServiceAggregate, payload)
    assert (version, state.instance.status) == (3, "starting")


# The policy


def test_closed_and_quiet_traces_become_snapshots_and_open_ones_wait(ledger: Ledger, store: Store) -> None:
    states = states_with(ledger, quiet_s=5.0)
    opened = story(1)[:2]
    log = [record(event, offset) for offset, event in enumerate([*story(0), *opened])]
    late = replace(record(story(2)[0], len(log)), headers=record(story(2)[0]).headers)
    for part in (batch(log), replace(batch([late]), log_times_ms=[LOG_TIME_MS + 6 * SECOND_MS])):
        store.commit(ledger, store.prepare(part))
        states.commit(ledger, states.prepare(part))
        if part.end == len(log):
            assert counts(ledger) == (2, 0)
    assert counts(ledger) == (2, 1)
    assert ledger.execute("SELECT aggregate_id, version, next_offset FROM spanfold.snapshots").fetchone() == (
        "trace 0",
        4,
        7,
    )


def test_a_late_span_opens_a_state_upon_the_snapshot(ledger: Ledger, store: Store) -> None:
    states = states_with(ledger)
    late = SpanRecorded(
        aggregate_id="trace 0", occurred_at=NOW + 9, source="test", span_id="9", parent_span_id=None, service_name="s",
        operation_name="o", start_time=NOW, end_time=NOW + 9,
    )  # fmt: skip
    log = batch([*LOG, record(late, len(LOG))])
    store.commit(ledger, store.prepare(log))
    first, second = log.split(len(LOG))
    states.commit(ledger, states.prepare(first))
    assert states.take_due(ledger, TRACES.name, 0, everything=True) == 10
    before = ledger.execute("SELECT max(sequence) FROM spanfold_core.snapshots").fetchone()
    assert counts(ledger) == (0, 10)
    states.commit(ledger, states.prepare(second))
    assert counts(ledger) == (1, 10)
    assert states.take_due(ledger, TRACES.name, 0, everything=True) == 1
    assert len(state_of(ledger, "trace 0").spans) == 3
    after = ledger.execute("SELECT max(sequence) FROM spanfold_core.snapshots").fetchone()
    assert before
    assert after
    assert after[0] == before[0] + 1


@pytest.mark.parametrize(("policy", "taken"), [({"every_records": 4}, 10), ({"every_records": 5}, 0)])
def test_every_so_many_records(ledger: Ledger, store: Store, policy: dict[str, Any], taken: int) -> None:
    states = states_with(ledger, **policy)
    store.commit(ledger, store.prepare(batch(LOG)))
    states.commit(ledger, states.prepare(batch(LOG)))
    assert counts(ledger) == (10 - taken, taken)


def test_a_partition_to_which_nothing_comes_is_looked_through_by_the_clock(ledger: Ledger, store: Store) -> None:
    now_ms = time.time_ns() // 1_000_000
    states = states_with(ledger, quiet_s=1e9, at_least_every_s=3600.0)
    log = replace(batch(LOG), log_times_ms=[now_ms - 3601 * SECOND_MS] * len(LOG))
    store.commit(ledger, store.prepare(log))
    states.commit(ledger, states.prepare(log))
    assert counts(ledger) == (10, 0)
    assert states.take_due(ledger, TRACES.name, 0) == 10


# What can't be read


def test_a_state_that_can_not_be_read_is_made_again_from_its_events(ledger: Ledger, store: Store) -> None:
    states = states_with(ledger)
    store.commit(ledger, store.prepare(batch(LOG)))
    states.commit(ledger, states.prepare(batch(LOG[:7])))
    ledger.execute("UPDATE spanfold_core.states SET state = %s", (OF_TOMORROW,))
    states.commit(ledger, states.prepare(batch(LOG[7:])))
    assert len(state_of(ledger, "trace 1").spans) == 2
    assert sorted(state_of(ledger, "trace 1").versions.values()) == [6, 8]


def test_where_its_events_are_gone_the_fold_stops_with_what_to_do(ledger: Ledger, store: Store) -> None:
    states = states_with(ledger)
    store.commit(ledger, store.prepare(batch(LOG)))
    states.commit(ledger, states.prepare(batch(LOG[:2])))
    ledger.execute("UPDATE spanfold_core.states SET state = %s", (OF_TOMORROW,))
    ledger.execute("INSERT INTO spanfold_core.journal_retention VALUES ('spanfold.traces', 0, 1, '2026-01-01')")
    with pytest.raises(
        Misconfigured, match=r"state of trace 0 in spanfold\.traces can't be read here .*1400009999.* is unknown"
    ):
        states.commit(ledger, states.prepare(batch(LOG[2:])))
    assert ledger.execute("SELECT DISTINCT state FROM spanfold_core.states").fetchall() == [(OF_TOMORROW,)]


class WithAddedField:
    """Schema ids of a version whose TraceSnapshot has a field more."""

    second = replace(committed().latest("TraceSnapshot"), id=1_499_999_998, version=2)

    def by_id(self, schema_id: int) -> Any:
        return _Extended(self.second) if schema_id == self.second.id else committed().by_id(schema_id)

    def latest(self, event_type: str) -> Any:
        return _Extended(self.second) if event_type == "TraceSnapshot" else committed().latest(event_type)


class _Extended:
    def __init__(self, entry: RegisteredSchema) -> None:
        self.id, self.event_type, self._entry = entry.id, entry.event_type, entry

    def load(self) -> Any:
        schema = self._entry.load()
        added = {"name": "reason", "type": ["null", "string"], "default": None}
        return {**schema, "fields": [*schema["fields"], added]}


def test_a_state_of_an_older_schema_is_read_and_written_with_the_latest_one(ledger: Ledger, store: Store) -> None:
    store.commit(ledger, store.prepare(batch(LOG)))
    older = states_with(ledger)
    older.commit(ledger, older.prepare(batch(LOG[:7])))
    newer = StateStore([Folding(TraceAggregate, SnapshotPolicy())], Codec(WithAddedField()))
    newer.commit(ledger, newer.prepare(batch(LOG[7:])))
    ids = ledger.execute("SELECT aggregate_id, get_byte(state, 4) FROM spanfold_core.states ORDER BY 1").fetchall()
    old, new = (each.id & 0xFF for each in (committed().latest("TraceSnapshot"), WithAddedField.second))
    assert dict(ids) == {"trace 0": old} | {f"trace {number}": new for number in range(1, 10)}
    payload = ledger.execute("SELECT state FROM spanfold_core.states WHERE aggregate_id = 'trace 1'").fetchone()
    assert payload
    assert len(decode_state(Codec(WithAddedField()), TraceAggregate, payload[0]).spans) == 2
