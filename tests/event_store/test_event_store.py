"""The event store on Kafka and Postgres keeps its port's contract, and says what it does not know."""

import asyncio
import json
import time
import uuid
from dataclasses import replace
from datetime import date
from typing import Any

import pytest
from confluent_kafka import Producer
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from spanfold.adapters.event_store import KafkaEventStore
from spanfold.application.aggregates import ChangeServiceHealth, ServiceAggregate
from spanfold.application.domain import InstanceStatus
from spanfold.application.event_store import NO_STREAM, Consistency, HeldUp, OutcomeUnknown, Rejected
from spanfold.application.execution import Retry, execute, load
from spanfold.application.messages import NotYetReflected
from spanfold.bootstrap import event_store
from spanfold.language.errors import InvalidInput
from spanfold.language.events import MetricUpdated, RecordDiscarded
from spanfold.language.partitioning import partitions_of
from spanfold.language.settings import Settings
from spanfold.language.times import now_us
from spanfold.language.topics import METRICS, SERVICES, TRACES, Topic
from spanfold.postgres.pool import Postgres
from spanfold.producers.publisher import TelemetryPublisher
from spanfold.projections.commit.journal import Journal
from spanfold.projections.history import reader
from spanfold.schemas.snapshots import of_json, to_json
from tests.contracts.event_store import EventStoreContract, fresh, register, registered
from tests.support import other_versions
from tests.support.databases import Ledger
from tests.support.workers import Start


class TestKafkaEventStore(EventStoreContract):
    @pytest.fixture
    def store(self, shared_store: KafkaEventStore) -> KafkaEventStore:
        return shared_store


def healthy(instance: str) -> ChangeServiceHealth:
    return ChangeServiceHealth(aggregate_id=instance, status=InstanceStatus.HEALTHY)


async def test_without_a_worker_the_outcome_is_unknown_and_can_be_asked_later(
    stack_settings: Settings, ledger: Ledger, start: Start
) -> None:
    instance = fresh()
    event = registered(instance)
    async with event_store(stack_settings, timeout_s=3) as hasty:
        with pytest.raises(OutcomeUnknown) as unknown:
            await hasty.append_event(event, NO_STREAM)
        with pytest.raises(OutcomeUnknown):
            await hasty.outcome_of(SERVICES, instance, unknown.value.event_id)
        with pytest.raises(NotYetReflected):
            await hasty.get_events(SERVICES, instance, consistency=Consistency.LINEARIZABLE)
        assert (await hasty.get_events(SERVICES, instance)).reflects is None
    start()
    async with event_store(stack_settings, timeout_s=60) as store:
        found = await store.outcome_of(SERVICES, instance, unknown.value.event_id)
        assert found
        assert (found.version, found.repeated) == (1, False)
        again = await store.append_event(event, NO_STREAM)
        assert (again.position, again.repeated) == (found.position, True)
        assert await store.outcome_of(SERVICES, instance, uuid.uuid4().bytes) is None


async def test_a_kafka_that_is_away_leaves_the_outcome_unknown(stack_settings: Settings, ledger: Ledger) -> None:
    away = stack_settings.model_copy(update={"kafka_bootstrap": "127.0.0.1:1"})
    async with event_store(away, timeout_s=3) as store:
        with pytest.raises(OutcomeUnknown, match="may or may not have been accepted"):
            await store.append_event(registered(fresh()), NO_STREAM)
        with pytest.raises(OutcomeUnknown):
            await store.outcome_of(SERVICES, fresh(), uuid.uuid4().bytes)


async def test_an_event_id_of_another_aggregate_is_used_up(store: KafkaEventStore, stack_settings: Settings) -> None:
    one = registered(fresh())
    partition = (await store.append_event(one, NO_STREAM)).position.partition
    others = (fresh() for _ in range(1000))
    neighbour = next(
        each for each in others if partitions_of([each.encode()], stack_settings.partitions)[0] == partition
    )
    stolen = replace(registered(neighbour), event_id=one.event_id)
    with pytest.raises(Rejected) as refusal:
        await store.append_event(stolen, NO_STREAM)
    assert refusal.value.verdict == "duplicate"
    assert "another aggregate" in str(refusal.value)
    assert await store.outcome_of(SERVICES, neighbour, one.event_id) is None


async def test_what_is_parked_is_named_until_it_is_settled(
    stack_settings: Settings, ledger: Ledger, start: Start
) -> None:
    instance, retry = fresh(), Retry(attempts=20)
    worker = start(program=other_versions.program("without_health_changes"))
    async with event_store(stack_settings, timeout_s=60) as store:
        await execute(store, ServiceAggregate, register(instance))
        changed = await execute(store, ServiceAggregate, healthy(instance))
        assert changed.position
        for _ in range(2):
            with pytest.raises(HeldUp, match="unknown_schema") as refusal:
                await store.get_events(SERVICES, instance)
            assert (refusal.value.position, refusal.value.version) == (changed.position, 2)
        # behind it nothing can be told either, and the aggregate can't be loaded
        await store.append_event(registered(instance, 81), 2)
        with pytest.raises(HeldUp):
            await load(store, ServiceAggregate, instance)
        assert (await store.get_events(SERVICES, instance, 3)).version == 3
        worker.stop()
        start()
        with pytest.raises(HeldUp):
            await store.get_events(SERVICES, instance)
        at = changed.position
        settled = RecordDiscarded(
            aggregate_id=instance, occurred_at=now_us(), source="test", record_topic=SERVICES.name,
            record_offset=at.offset,
        )  # fmt: skip
        async with TelemetryPublisher(stack_settings) as publisher:
            await publisher.apublish(settled)
        history = await store.get_events(SERVICES, instance, consistency=Consistency.LINEARIZABLE)
        assert [(each.version, each.event.event_type) for each in history] == [
            (1, "ServiceRegistered"), (3, "ServiceRegistered"),
        ]  # fmt: skip
        assert history.version == 4
        # the fact took a version, and commands go on
        assert (await execute(store, ServiceAggregate, healthy(instance), retry)).version == 5


async def test_however_many_wait_few_queries_are_asked(store: KafkaEventStore, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, rows = list[str](), Postgres.rows

    async def counted(self: Postgres, statement: str, *args: Any, **kwargs: Any) -> Any:
        asked.append(statement)
        return await rows(self, statement, *args, **kwargs)

    monkeypatch.setattr(Postgres, "rows", counted)
    begun = time.monotonic()
    told = await asyncio.gather(*(store.append_event(registered(fresh()), NO_STREAM) for _ in range(2_000)))
    print(f"{len(told)} appends at once: {time.monotonic() - begun:.1f} s, {len(asked)} queries")
    assert {each.version for each in told} == {1}
    assert len(asked) < len(told)


async def test_points_are_appended_and_have_no_history(store: KafkaEventStore) -> None:
    point = MetricUpdated(aggregate_id=fresh(), occurred_at=now_us(), source="t", name="n", service_name="s", value=1)
    appended = await store.append_event(point)
    assert appended.version == appended.position.offset + 1
    with pytest.raises(InvalidInput, match="keeps no journal"):
        await store.get_events(METRICS, point.aggregate_id)


plains = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 63) - 1)
    | st.floats(allow_nan=False)
    | st.binary()
    | st.text(),
    lambda each: st.lists(each, max_size=3) | st.dictionaries(st.text(max_size=3), each, max_size=3),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(plains)
@example({"$bytes": "x", "a\0": "\0", "t": "\ud800", "f": [1e300, -0.0, 1.0, 5e-324], "b": b"\0\xff"})
def test_a_state_is_the_same_after_postgres_has_held_it(ledger: Ledger, state: Any) -> None:
    written = json.dumps(to_json(state), ensure_ascii=False, allow_nan=False)
    [(kept,)] = ledger.execute("SELECT (%s::jsonb)::text", [written]).fetchall()
    assert exact(of_json(json.loads(kept))) == exact(state)


def exact(value: Any) -> Any:
    """Equal only for values of the same types: 1.0 is not 1, -0.0 not 0.0, and the order of a map's members is nothing."""
    match value:
        case dict():
            return {name: exact(item) for name, item in value.items()}
        case list():
            return [exact(item) for item in value]
        case _:
            return repr(value)


async def test_what_lies_behind_an_open_transaction_is_unknown_and_not_absent(
    stack_settings: Settings, store: KafkaEventStore
) -> None:
    instance = fresh()
    home = int(partitions_of([instance.encode()], stack_settings.partitions)[0])
    other = Producer(
        {"bootstrap.servers": stack_settings.kafka_bootstrap, "transactional.id": instance, "log_level": 0}
    )
    other.init_transactions(30)
    other.begin_transaction()
    other.produce(SERVICES.on_broker(stack_settings.topic_prefix), b"", instance.encode(), home)
    assert other.flush(30) == 0
    event = registered(instance)
    async with event_store(stack_settings, timeout_s=3) as hasty:
        with pytest.raises(OutcomeUnknown):
            await hasty.append_event(event, NO_STREAM)
        with pytest.raises(OutcomeUnknown):
            await hasty.outcome_of(SERVICES, instance, event.event_id)
        # committed records are all that such a read waits for
        assert (await hasty.get_events(SERVICES, instance, consistency=Consistency.LINEARIZABLE)).version == 0
    await asyncio.to_thread(other.abort_transaction, 30)
    found = await store.outcome_of(SERVICES, instance, event.event_id)
    assert found
    assert found.version == 1


@pytest.mark.parametrize("name", ["ANSWERS", "OUTCOME", "EVENTS"])
@pytest.mark.parametrize("topic", [SERVICES, TRACES], ids=lambda topic: topic.short_name)
def test_every_lookup_has_an_index(ledger: Ledger, topic: Topic, name: str) -> None:
    statement = getattr(reader, f"{topic.kind.name}_{name}").format(journal=reader._table(topic))
    parameters = {
        "topic": topic.name, "partition": 0, "aggregate": "a", "id": uuid.uuid4(), "from_version": 3, "partitions": [0],
        "offsets": [0], "aggregates": ["a"], "ids": [uuid.uuid4()], "days": [date(2026, 1, 1)],
    }  # fmt: skip
    journal = Journal(TRACES)
    journal.prepare(ledger, [now_us() // 1000])
    ledger.execute("SET enable_seqscan = off")
    plan = "\n".join(line for (line,) in ledger.execute(f"EXPLAIN {statement}".encode(), parameters))
    for table in ("journal_", "first_verdicts", "heads", "rejected", "parked"):
        assert f"Seq Scan on {table}" not in plan, plan
