"""The projection `services`, and batches of events: in any cut, the rows are what ServiceAggregate says of the same events."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spanfold.application.aggregates import ServiceAggregate, ServiceInstance
from spanfold.language.errors import PoisonRecord
from spanfold.language.events import (
    DomainEvent,
    EventBatch,
    RecordDiscarded,
    RecordRetried,
    ServiceDeregistered,
    ServiceEvent,
    ServiceHealthChanged,
    ServiceRegistered,
    TraceCompleted,
)
from spanfold.language.topics import SERVICES
from spanfold.projections.commit.batch import Batch
from spanfold.projections.commit.reading import read
from spanfold.projections.commit.store import Store
from spanfold.projections.commit.verdicts import judge
from spanfold.projections.facts import Fact
from spanfold.projections.projection import installed
from spanfold.projections.services import PROJECTION
from spanfold.schemas.batches import pack
from spanfold.schemas.codec import Codec
from tests.support.databases import Ledger
from tests.support.stores import Forgetful
from tests.support.strategies import CODEC, NOW, Record, batch, record, texts

instances = st.sampled_from(["cart-1", "cart-2"])
statuses = st.sampled_from(["starting", "healthy", "unhealthy", "stopping", "asleep"])
times = st.integers(NOW, NOW + 3)
event_ids = st.uuids().map(lambda each: each.bytes)
said: dict[str, Any] = {"occurred_at": times, "source": st.just("test"), "event_id": event_ids}


def about(instance: st.SearchStrategy[str]) -> st.SearchStrategy[ServiceEvent]:
    return st.one_of(
        st.builds(
            ServiceRegistered, aggregate_id=instance, service_name=texts, host=texts, port=st.integers(0, 65535),
            health_check_url=texts, metadata=st.dictionaries(texts, texts, max_size=2), status=statuses, **said,
        ),
        st.builds(ServiceHealthChanged, aggregate_id=instance, status=statuses, reason=texts, **said),
        st.builds(ServiceDeregistered, aggregate_id=instance, reason=texts, **said),
    )  # fmt: skip


appends = st.lists(instances.flatmap(lambda one: st.lists(about(st.just(one)), min_size=1, max_size=3)), max_size=8)
"""Events that travel together, of one instance each."""


def records_of(together: Sequence[Sequence[ServiceEvent]]) -> list[Record]:
    return [
        record(events[0] if len(events) == 1 else pack(events, CODEC), offset) for offset, events in enumerate(together)
    ]


def of_services(records: Sequence[Record]) -> Batch:
    return replace(batch(records), topic=SERVICES)


def facts_of(records: Sequence[Record], parked: dict[int, PoisonRecord] | None = None) -> list[Fact]:
    return read(judge(of_services(records)), CODEC, {} if parked is None else parked)


def told(together: Sequence[Sequence[ServiceEvent]]) -> dict[str, ServiceInstance]:
    """The registered instances, as the aggregate has them."""
    states: dict[str, Any] = {}
    for event in (each for events in together for each in events):
        state = states.get(event.aggregate_id) or ServiceAggregate.initial(event.aggregate_id)
        states[event.aggregate_id] = ServiceAggregate.evolve(state, event)
    return {key: state.instance for key, state in states.items() if state.instance}


def shown(ledger: Ledger) -> dict[str, ServiceInstance]:
    query = "SELECT instance_id, service_name, host, port, health_check_url, metadata, status FROM spanfold.services"
    names = ("id", "name", "host", "port", "health_check_url", "metadata", "status")
    return {row[0]: ServiceInstance(**dict(zip(names, row, strict=True))) for row in ledger.execute(query)}


def healthy(ledger: Ledger) -> dict[str, bool]:
    return dict(ledger.execute("SELECT instance_id, is_healthy FROM spanfold.services").fetchall())


def commit(ledger: Ledger, records: Sequence[Record], store: Store | None = None) -> None:
    store = store or Store(installed(), CODEC)
    store.commit(ledger, store.prepare(of_services(records)))


def empty(ledger: Ledger) -> None:
    tables = ("journal_services", "first_verdicts", "heads", "rejected", "parked")
    for table in (*(f"spanfold_core.{name}" for name in tables), "services_g1.services"):
        ledger.execute(f"DELETE FROM {table}".encode())
    ledger.execute("UPDATE spanfold_core.checkpoints SET next_offset = 0")


@settings(max_examples=100, deadline=None)
@given(appends, st.data())
def test_any_order_and_any_cut_of_records_folds_to_the_same_partial(
    together: list[list[ServiceEvent]], data: st.DataObject
) -> None:
    facts = facts_of(records_of(together))
    of_record: dict[int, list[Fact]] = defaultdict(list)
    for fact in facts:
        of_record[fact[0]].append(fact)
    parts = data.draw(st.permutations(list(of_record.values())))
    whole = PROJECTION.fold(facts)
    assert PROJECTION.fold([fact for part in parts for fact in part]) == whole
    partials = [PROJECTION.fold(part) for part in parts]
    assert reduce(PROJECTION.combine, partials, PROJECTION.fold(())) == whole
    assert reduce(lambda one, two: PROJECTION.combine(two, one), partials, PROJECTION.fold(())) == whole


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(together=appends, size=st.integers(1, 4), again=st.booleans())
def test_the_rows_are_what_the_aggregates_are(
    ledger: Ledger, together: list[list[ServiceEvent]], size: int, again: bool
) -> None:
    empty(ledger)
    records = records_of(together)
    for at in range(0, len(records), size):
        commit(ledger, records[at : at + size])
        if again:
            commit(ledger, records[: at + size])
    expected = told(together)
    assert shown(ledger) == expected
    assert healthy(ledger) == {key: instance.is_healthy for key, instance in expected.items()}


def registered(**changes: Any) -> ServiceRegistered:
    fields: dict[str, Any] = {
        "aggregate_id": "cart-1", "occurred_at": NOW, "source": "test", "service_name": "cart", "host": "h", "port": 80,
        "health_check_url": "http://h/health",
    } | changes  # fmt: skip
    return ServiceRegistered(**fields)


def changed(status: str, **changes: Any) -> ServiceHealthChanged:
    fields: dict[str, Any] = {"aggregate_id": "cart-1", "occurred_at": NOW, "source": "test"} | changes
    return ServiceHealthChanged(status=status, **fields)


COMPLETED = TraceCompleted(aggregate_id="cart-1", occurred_at=NOW, source="test", end_time=NOW)


def packed(*events: DomainEvent) -> EventBatch:
    return pack(events, CODEC)


def with_event(event: DomainEvent) -> EventBatch:
    """A batch that names its first event rightly and holds this one beside it, whatever its topic."""
    payload = CODEC.encode(event.event_type, event.as_fields())
    stray = {"event_type": event.event_type, "event_id": event.event_id, "payload": payload}
    whole = packed(registered())
    return replace(whole, events=(*whole.events, stray))


SETTLEMENT = RecordDiscarded(
    aggregate_id="cart-1", occurred_at=NOW, source="test", record_topic=SERVICES.name, record_offset=0
)


@pytest.mark.parametrize(
    ("spoilt", "reason", "detail"),
    [
        (packed(registered(), changed("a\0b")), "invalid", "NUL"),
        (with_event(COMPLETED), "invalid", "does not belong to spanfold.services"),
        (with_event(SETTLEMENT), "invalid", "a record of its own"),
        (with_event(changed("healthy", aggregate_id="cart-2")), "unreadable", "contradicts"),
    ],
)
def test_of_a_batch_with_one_bad_event_nothing_is_folded(spoilt: EventBatch, reason: str, detail: str) -> None:
    parked: dict[int, PoisonRecord] = {}
    good = registered(aggregate_id="cart-9")
    facts = facts_of([record(spoilt, 0), record(good, 1)], parked)
    assert [offset for offset, _, _ in facts] == [1]
    assert {index: each.reason for index, each in parked.items()} == {0: reason}
    assert detail in parked[0].detail


def test_a_batch_whose_headers_say_otherwise_is_parked() -> None:
    parked: dict[int, PoisonRecord] = {}
    one = record(packed(registered(), changed("healthy")))
    headers = [(name, b"7" if name == "occurred_at" else value) for name, value in one.headers]
    assert facts_of([replace(one, headers=headers)], parked) == []
    assert parked[0].reason == "contradiction"


def test_a_batch_is_one_version_and_is_held_up_as_a_whole(ledger: Ledger) -> None:
    class NoHealth(Forgetful):
        def by_id(self, schema_id: int) -> Any:
            entry = Codec()._ids.by_id(schema_id)
            return None if entry is None or entry.event_type == "ServiceHealthChanged" else entry

    log = records_of([[registered()], [registered(port=81), changed("healthy")], [registered(port=82)]])
    commit(ledger, log, Store(installed(), Codec(NoHealth())))
    assert {each.port for each in shown(ledger).values()} == {80}
    rows = ledger.execute("SELECT kafka_offset, reason FROM spanfold.parked_records ORDER BY 1").fetchall()
    assert rows == [(1, "unknown_schema"), (2, "behind")]
    versions = ledger.execute("SELECT version FROM spanfold_core.journal_services ORDER BY kafka_offset").fetchall()
    assert versions == [(1,), (2,), (3,)]
    retried = RecordRetried(
        aggregate_id="cart-1", occurred_at=NOW, source="test", record_topic=SERVICES.name, record_offset=1
    )
    commit(ledger, [record(retried, 3)])
    (instance,) = shown(ledger).values()
    assert (instance.port, instance.status) == (82, "starting")
