"""What every EventStore does. A subclass named Test… gives the fixture `store`; the log behind it may hold other records."""

import asyncio
import uuid
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from spanfold.application.aggregates import ChangeServiceHealth, DeregisterService, RegisterService, ServiceAggregate
from spanfold.application.domain import InstanceStatus
from spanfold.application.event_store import (
    ANY,
    NO_STREAM,
    Conflict,
    Consistency,
    EventStore,
    History,
    Rejected,
    Snapshot,
)
from spanfold.application.execution import Retry, execute, load, snapshot_of
from spanfold.language.errors import CommandRefused, InvalidInput
from spanfold.language.events import DomainEvent, ServiceHealthChanged, ServiceRegistered, SpanRecorded, TraceCompleted
from spanfold.language.times import now_us
from spanfold.language.topics import SERVICES, TRACES, US_PER_DAY

LINEARIZABLE = Consistency.LINEARIZABLE


def fresh() -> str:
    """The id of an aggregate that nobody has used."""
    return uuid.uuid4().hex


def registered(instance: str, port: int = 80, at: int | None = None) -> ServiceRegistered:
    return ServiceRegistered(
        aggregate_id=instance,
        occurred_at=at or now_us(),
        source="test",
        service_name="cart",
        host="10.0.0.7",
        port=port,
        health_check_url=f"http://10.0.0.7:{port}/health",
        metadata={"zone": "a"},
    )


def changed(instance: str, status: str = "healthy") -> ServiceHealthChanged:
    return ServiceHealthChanged(aggregate_id=instance, occurred_at=now_us(), source="test", status=status)


def completed(trace: str, at: int | None = None) -> TraceCompleted:
    at = at or now_us()
    return TraceCompleted(aggregate_id=trace, occurred_at=at, source="test", end_time=at, tags={"items": 3})


def span(trace: str, number: int) -> SpanRecorded:
    at = now_us()
    return SpanRecorded(
        aggregate_id=trace, occurred_at=at, source="test", span_id=f"{number:016x}", parent_span_id=None,
        service_name="cart", operation_name="GET", start_time=at - 10, end_time=at,
    )  # fmt: skip


def register(instance: str, **said: Any) -> RegisterService:
    return RegisterService(
        aggregate_id=instance, service_name="cart", host="h", port=80, health_check_url="http://h/health", **said
    )


async def kept(store: EventStore, instance: str) -> History:
    return await store.get_events(SERVICES, instance, consistency=LINEARIZABLE)


def versions(history: History) -> list[tuple[int, DomainEvent]]:
    return [(each.version, each.event) for each in history]


class EventStoreContract:
    # Versions

    async def test_records_of_an_aggregate_are_numbered_from_one(self, store: EventStore) -> None:
        instance = fresh()
        events: Sequence[DomainEvent] = [registered(instance), changed(instance), changed(instance, "stopping")]
        for version, event in enumerate(events, 1):
            appended = await store.append_event(event, version - 1)
            assert (appended.version, appended.repeated) == (version, False)
        history = await kept(store, instance)
        assert versions(history) == list(enumerate(events, 1))
        assert history.version == 3

    async def test_what_is_read_says_where_it_lies_and_when_the_log_had_it(self, store: EventStore) -> None:
        instance, before = fresh(), now_us()
        appended = await store.append_event(registered(instance), NO_STREAM)
        history = await kept(store, instance)
        (recorded,) = history
        assert recorded.position == appended.position
        assert appended.position.topic == SERVICES.name
        assert before - 1_000 <= recorded.log_time <= now_us()
        assert history.reflects
        assert history.reflects.partition == appended.position.partition
        assert history.reflects.offset >= appended.position.offset

    async def test_the_first_that_expects_the_version_wins(self, store: EventStore) -> None:
        instance = fresh()
        await store.append_event(registered(instance), NO_STREAM)
        for expected in (NO_STREAM, 2, 7):
            with pytest.raises(Conflict) as refusal:
                await store.append_event(changed(instance), expected)
            assert (refusal.value.expected, refusal.value.actual) == (expected, 1)
        assert len((await kept(store, instance)).events) == 1

    async def test_of_many_at_once_one_wins(self, store: EventStore) -> None:
        instance = fresh()
        told = await asyncio.gather(
            *(store.append_event(registered(instance, port), NO_STREAM) for port in range(1, 11)),
            return_exceptions=True,
        )
        assert len([each for each in told if isinstance(each, Conflict)]) == 9
        assert len((await kept(store, instance)).events) == 1

    async def test_without_an_expectation_an_append_takes_the_next_version(self, store: EventStore) -> None:
        instance = fresh()
        told = await asyncio.gather(*(store.append_event(registered(instance, port)) for port in range(1, 6)))
        assert sorted(each.version for each in told) == [1, 2, 3, 4, 5]

    async def test_aggregates_have_versions_of_their_own(self, store: EventStore) -> None:
        one, other = fresh(), fresh()
        await store.append_event(registered(one), NO_STREAM)
        assert (await store.append_event(registered(other), NO_STREAM)).version == 1
        assert [each.event.aggregate_id for each in await kept(store, other)] == [other]

    async def test_of_an_aggregate_that_nobody_knows_there_is_nothing(self, store: EventStore) -> None:
        history = await kept(store, fresh())
        assert (list(history), history.version) == ([], 0)

    async def test_events_are_read_from_after_a_version(self, store: EventStore) -> None:
        instance = fresh()
        for port in (1, 2, 3):
            await store.append_event(registered(instance, port))
        tail = await store.get_events(SERVICES, instance, 2, consistency=LINEARIZABLE)
        assert ([each.version for each in tail], tail.version) == ([3], 3)
        ended = await store.get_events(SERVICES, instance, 3, consistency=LINEARIZABLE)
        assert (list(ended), ended.version) == ([], 3)

    # The first verdict on an event id is final

    async def test_the_same_event_again_has_the_verdict_that_it_had(self, store: EventStore) -> None:
        instance = fresh()
        event = registered(instance)
        first = await store.append_event(event, NO_STREAM)
        await store.append_event(changed(instance), 1)
        for expected in (NO_STREAM, 2, ANY, 9):  # a duplicate is found before the version is looked at
            again = await store.append_event(event, expected)
            assert again == replace(first, repeated=True)
        assert (await kept(store, instance)).version == 2

    async def test_a_rejection_is_final_and_a_new_id_is_another_event(self, store: EventStore) -> None:
        instance = fresh()
        event = registered(instance)
        with pytest.raises(Conflict):
            await store.append_event(event, 5)
        with pytest.raises(Conflict, match="final"):
            await store.append_event(event, NO_STREAM)
        assert (await kept(store, instance)).version == 0
        renamed = replace(event, event_id=uuid.uuid4().bytes)
        assert (await store.append_event(renamed, NO_STREAM)).version == 1

    async def test_the_outcome_of_an_event_id_can_be_asked(self, store: EventStore) -> None:
        instance = fresh()
        accepted, rejected = registered(instance), changed(instance)
        appended = await store.append_event(accepted, NO_STREAM)
        with pytest.raises(Conflict):
            await store.append_event(rejected, NO_STREAM)
        found = await store.outcome_of(SERVICES, instance, accepted.event_id)
        assert found
        assert (found.version, found.position) == (appended.version, appended.position)
        with pytest.raises(Conflict) as refusal:
            await store.outcome_of(SERVICES, instance, rejected.event_id)
        assert refusal.value.actual == 1
        assert await store.outcome_of(SERVICES, instance, uuid.uuid4().bytes) is None

    # Several events in one append

    async def test_several_events_are_one_version(self, store: EventStore) -> None:
        instance = fresh()
        events = [registered(instance), changed(instance)]
        assert (await store.append_events(events, NO_STREAM)).version == 1
        await store.append_event(changed(instance, "stopping"), 1)
        history = await kept(store, instance)
        assert versions(history)[:2] == [(1, each) for each in events]
        assert [each.version for each in history] == [1, 1, 2]
        assert len({each.position for each in history}) == 2

    async def test_several_events_are_judged_whole(self, store: EventStore) -> None:
        instance = fresh()
        await store.append_event(registered(instance), NO_STREAM)
        with pytest.raises(Conflict):
            await store.append_events([registered(instance, 81), changed(instance)], NO_STREAM)
        assert (await kept(store, instance)).version == 1

    async def test_several_events_again_are_the_same_append(self, store: EventStore) -> None:
        instance = fresh()
        events = [registered(instance), changed(instance)]
        first = await store.append_events(events, NO_STREAM)
        assert await store.append_events(events, NO_STREAM) == replace(first, repeated=True)
        named = uuid.uuid4().bytes
        second = await store.append_events(events, 1, batch_id=named)
        assert (second.version, second.repeated) == (2, False)
        found = await store.outcome_of(SERVICES, instance, named)
        assert found
        assert found.position == second.position

    async def test_what_cannot_be_one_append_is_refused(self, store: EventStore) -> None:
        one = registered(fresh())
        for events in ([], [one, registered(fresh())], [one, completed(one.aggregate_id)]):
            with pytest.raises(InvalidInput, match="one aggregate"):
                await store.append_events(events)
        with pytest.raises(InvalidInput, match="expected_version"):
            await store.append_event(one, -1)
        with pytest.raises(InvalidInput, match="512"):
            await store.append_event(registered("x" * 513))
        assert (await kept(store, one.aggregate_id)).version == 0

    # Telemetry: facts that have happened already

    async def test_facts_are_appended_in_any_order_and_read_by_version(self, store: EventStore) -> None:
        trace = fresh()
        facts: list[DomainEvent] = [completed(trace), span(trace, 1), span(trace, 2)]
        one = await store.append_event(facts[0])
        several = await store.append_events(facts[1:])
        assert one.version == one.position.offset + 1
        assert several.version == several.position.offset + 1
        history = await store.get_events(TRACES, trace, consistency=LINEARIZABLE)
        assert sorted(each.event.event_id for each in history) == sorted(each.event_id for each in facts)
        numbers = [each.version for each in history]
        assert numbers == sorted(set(numbers)) == [each.position.offset + 1 for each in history]
        assert history.version == max(one.version, several.version)

    async def test_a_fact_again_is_the_same_fact(self, store: EventStore) -> None:
        trace = fresh()
        fact = completed(trace)
        first = await store.append_event(fact)
        assert await store.append_event(fact) == replace(first, repeated=True)
        found = await store.outcome_of(TRACES, trace, fact.event_id)
        assert found
        assert found.position == first.position
        assert len((await store.get_events(TRACES, trace, consistency=LINEARIZABLE)).events) == 1

    async def test_facts_expect_no_version(self, store: EventStore) -> None:
        with pytest.raises(InvalidInput, match="expected_version=ANY"):
            await store.append_event(completed(fresh()), NO_STREAM)

    @pytest.mark.parametrize(("days", "verdict"), [(-31, "expired"), (2, "future")])
    async def test_a_fact_out_of_its_time_is_rejected(self, store: EventStore, days: int, verdict: str) -> None:
        trace = fresh()
        fact = completed(trace, now_us() + days * US_PER_DAY)
        for ask in (lambda: store.append_event(fact), lambda: store.outcome_of(TRACES, trace, fact.event_id)):
            with pytest.raises(Rejected) as refusal:
                await ask()
            assert refusal.value.verdict == verdict
        assert list(await store.get_events(TRACES, trace, consistency=LINEARIZABLE)) == []

    # Snapshots

    async def test_the_latest_snapshot_of_a_fold_is_kept(self, store: EventStore) -> None:
        instance = fresh()
        assert await store.get_snapshot(SERVICES, instance, 1) is None
        state = ServiceAggregate.as_plain(ServiceAggregate.initial(instance))
        for version in (3, 5, 4):
            await store.save_snapshot(SERVICES, Snapshot(instance, version, 1, state))
        assert await store.get_snapshot(SERVICES, instance, 1) == Snapshot(instance, 5, 1, state)
        assert await store.get_snapshot(SERVICES, instance, 2) is None

    async def test_snapshot_and_tail_are_the_full_replay(self, store: EventStore) -> None:
        instance = fresh()
        await store.append_events([registered(instance), changed(instance)], NO_STREAM)
        half = await load(store, ServiceAggregate, instance, consistency=LINEARIZABLE)
        await store.append_event(changed(instance, "stopping"), 1)
        full = await load(store, ServiceAggregate, instance, consistency=LINEARIZABLE)
        await store.save_snapshot(SERVICES, snapshot_of(half))
        tailed = await load(store, ServiceAggregate, instance, consistency=LINEARIZABLE)
        assert (tailed.state, tailed.version) == (full.state, full.version)
        assert full.version == 2
        assert full.state.instance
        assert full.state.instance.status is InstanceStatus.STOPPING

    # Commands

    async def test_a_command_is_carried_out_once_however_often_it_is_sent(self, store: EventStore) -> None:
        instance = fresh()
        command = register(instance)
        first = await execute(store, ServiceAggregate, command)
        later = await execute(
            store, ServiceAggregate, ChangeServiceHealth(aggregate_id=instance, status=InstanceStatus.HEALTHY)
        )
        again = await execute(store, ServiceAggregate, replace(command, timestamp=command.timestamp + 5))
        assert (len(first.events), first.version, later.version) == (1, 1, 2)
        assert (again.events, again.version, again.position) == ((), 1, first.position)
        assert (await kept(store, instance)).version == 2

    async def test_a_command_that_its_own_effect_forbids_is_not_refused_when_sent_again(
        self, store: EventStore
    ) -> None:
        instance = fresh()
        await execute(store, ServiceAggregate, register(instance))
        change = ChangeServiceHealth(aggregate_id=instance, status=InstanceStatus.HEALTHY)
        await execute(store, ServiceAggregate, change)
        await execute(store, ServiceAggregate, DeregisterService(aggregate_id=instance))
        linearized = await kept(store, instance)
        assert linearized.version == 3
        assert (await execute(store, ServiceAggregate, change)).version == 2
        with pytest.raises(CommandRefused, match="not registered"):
            await execute(store, ServiceAggregate, replace(change, command_id="another"))

    async def test_commands_at_the_same_time_are_carried_out_one_after_the_other(self, store: EventStore) -> None:
        instance, retry = fresh(), Retry(attempts=50, longest_wait_s=0.05)
        done = await asyncio.gather(*(execute(store, ServiceAggregate, register(instance), retry) for _ in range(6)))
        assert sorted(each.version for each in done) == [1, 2, 3, 4, 5, 6]
        assert [each.version for each in await kept(store, instance)] == [1, 2, 3, 4, 5, 6]
