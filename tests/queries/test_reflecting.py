"""What an answer reflects: one's own write when it is asked for, and exactly what it says, also while a rebuild swaps."""

import asyncio
import uuid
from typing import Any

import psycopg
import pytest
from confluent_kafka import Consumer, TopicPartition

from spanfold.application.buses import QueryBus
from spanfold.application.messages import NotYetReflected
from spanfold.application.queries import (
    Cursor,
    FindTraces,
    GetMetricsByName,
    GetOperationStats,
    GetServiceDependencies,
    GetTrace,
)
from spanfold.bootstrap import query_bus, query_bus_of, query_reader
from spanfold.language.errors import InvalidInput, Misconfigured, StoreUnavailable
from spanfold.language.events import TraceCreated
from spanfold.language.positions import Position
from spanfold.language.settings import Settings
from spanfold.language.times import now_us
from spanfold.language.topics import SERVICES, TRACES
from spanfold.postgres.dsn import url_with_defaults
from spanfold.producers.publisher import TelemetryPublisher
from spanfold.projections.queries import micros
from spanfold.projections.queries.traces import page_of_traces
from tests.support.commands import command
from tests.support.publishing import publish_all
from tests.support.topics import last_positions
from tests.support.workers import Worker


def created() -> TraceCreated:
    at = now_us()
    return TraceCreated(
        aggregate_id=uuid.uuid4().hex, occurred_at=at, source="test", service_name="shop", operation_name="pay",
        start_time=at,
    )  # fmt: skip


async def test_one_reads_what_one_has_written(stack_settings: Settings, bus: QueryBus, worker: Worker) -> None:
    for _ in range(15):
        event = created()
        publish_all(stack_settings, [event])
        answer = await bus.ask(GetTrace(trace_id=event.aggregate_id, at_least=last_positions(stack_settings, TRACES)))
        assert answer.result
        assert answer.result.start_time == event.start_time


async def test_the_wait_is_bounded_and_says_what_lacks(stack_settings: Settings, ledger: object) -> None:
    async with query_bus(stack_settings, wait_s=0.3) as bus:
        assert (await bus.ask(FindTraces())).reflects == ()
        wanted = Position(TRACES.name, 2, 7)
        with pytest.raises(NotYetReflected, match=r"did not reach spanfold.traces/2@7 within 0.3 s") as late:
            await bus.ask(FindTraces(at_least=(wanted,)))
        assert late.value.positions == (wanted,)


async def test_many_wait_at_once(stack_settings: Settings, bus: QueryBus, worker: Worker) -> None:
    events = [created() for _ in range(200)]
    publish_all(stack_settings, events)
    at_least = last_positions(stack_settings, TRACES)
    answers = await asyncio.gather(
        *(bus.ask(GetTrace(trace_id=event.aggregate_id, at_least=at_least)) for event in events)
    )
    assert [answer.result and answer.result.id for answer in answers] == [event.aggregate_id for event in events]


async def test_the_role_that_may_only_read_is_enough(stack_settings: Settings, ledger: object) -> None:
    dsn = url_with_defaults(str(stack_settings.postgres_dsn), options="-c role=spanfold_reader")
    async with query_reader(stack_settings.model_copy(update={"postgres_dsn": dsn})) as reader:
        assert await reader.problems() == []
        bus = query_bus_of(reader)
        for query in (FindTraces(), GetOperationStats(), GetServiceDependencies(), GetMetricsByName(name="cpu")):
            assert (await bus.ask(query)).reflects == ()


async def test_what_never_comes_is_not_waited_for(bus: QueryBus) -> None:
    with pytest.raises(
        InvalidInput, match=r"spanfold.services/0@1 is not folded into traces, which reads spanfold.traces"
    ):
        await bus.ask(FindTraces(at_least=(Position(SERVICES.name, 0, 1),)))
    with pytest.raises(InvalidInput, match=r"spanfold\.traces has no partition 99"):
        await bus.ask(FindTraces(at_least=(Position(TRACES.name, 99, 1),)))
    with pytest.raises(InvalidInput, match="not folded into metrics"):
        await bus.ask(GetMetricsByName(name="cpu", at_least=(Position(TRACES.name, 0, 1),)))


async def test_a_database_that_is_not_prepared_or_away_is_named(stack_settings: Settings, postgres_dsn: str) -> None:
    async with query_bus(stack_settings) as bus:
        with pytest.raises(Misconfigured, match="run `spanfold migrate`"):
            await bus.ask(FindTraces())
    with pytest.raises(Misconfigured, match="SPANFOLD_POSTGRES_DSN"):
        async with query_bus(Settings(postgres_dsn=None)):
            pass
    away = stack_settings.model_copy(update={"postgres_dsn": "postgresql://127.0.0.1:1/nobody"})
    async with query_bus(away) as bus:
        with pytest.raises(StoreUnavailable):
            await bus.ask(FindTraces())


def positions(settings: Settings) -> dict[str, Position]:
    """Where each trace's record lies."""
    consumer = Consumer({"bootstrap.servers": settings.kafka_bootstrap, "group.id": "test"})
    name, found = TRACES.on_broker(settings.topic_prefix), {}
    wanted = {(each.partition, each.offset) for each in last_positions(settings, TRACES)}
    consumer.assign([TopicPartition(name, partition, 0) for partition in range(settings.partitions)])
    while wanted:
        message = consumer.poll(10)
        assert message
        assert not message.error()
        key, at = message.key(), (message.partition(), message.offset())
        assert isinstance(key, bytes)
        found[key.decode()] = Position(TRACES.name, *at)  # type: ignore[arg-type]
        wanted.discard(at)
    consumer.close()
    return found


async def test_rows_and_positions_are_of_one_moment_also_while_a_rebuild_swaps(
    stack_settings: Settings, bus: QueryBus, worker: Worker, ledger: psycopg.Connection[object]
) -> None:
    publish_all(stack_settings, [created() for _ in range(300)])
    await bus.ask(FindTraces(at_least=last_positions(stack_settings, TRACES)))
    rebuild = asyncio.create_task(asyncio.to_thread(command, stack_settings, "rebuild", "traces"))
    seen: list[tuple[set[str], tuple[Position, ...]]] = []
    with TelemetryPublisher(stack_settings) as publisher:
        while not rebuild.done() or len({len(ids) for ids, _ in seen}) <= 10:
            if len(seen) < 400:
                publisher.publish(created())
            assert len(seen) < 1200, f"rebuild ended: {rebuild.done()}; traces seen: {[len(ids) for ids, _ in seen]}"
            answer = await bus.ask(FindTraces(limit=1000))
            assert answer.result.next_cursor is None
            seen.append(({trace.id for trace in answer.result.items}, answer.reflects))
            await asyncio.sleep(0.05)
        assert publisher.flush(60) == 0
    assert (await rebuild).returncode == 0, await rebuild
    lying = positions(stack_settings)
    generations = ledger.execute(
        "SELECT generation FROM spanfold.projections WHERE projection = 'traces' AND state = 'live'"
    )
    assert generations.fetchone() == (2,)
    for ids, reflects in seen:
        reached = {each.partition: each.offset for each in reflects}
        assert ids == {trace for trace, at in lying.items() if at.offset <= reached.get(at.partition, -1)}


async def test_a_page_far_down_reads_no_more_than_a_page(ledger: psycopg.Connection[object]) -> None:
    ledger.execute("""
        INSERT INTO traces_g1.traces (trace_id, service_name, operation_name, created_at, start_time, span_count, error_count,
                                      version, last_event_at)
        SELECT 't-' || n, 'shop', 'pay', now(), timestamptz '2026-01-01Z' + n / 5 * interval '1 ms', 0, 0, n, now()
          FROM generate_series(1, 50000) AS n
    """)
    ledger.execute("ANALYZE traces_g1.traces")
    middle = 1_767_225_600_000_000 + 5_000_000  # 2026-01-01 and five seconds
    for query, most in (
        (FindTraces(limit=50), 60),
        (FindTraces(limit=50, cursor=str(Cursor(middle, "t-25002"))), 60),
        (FindTraces(limit=50, service_name="shop", start_before=middle), 60),
    ):
        read = rows_read(ledger, query)
        assert 50 < read <= most, (query, read)


def rows_read(ledger: psycopg.Connection[object], query: FindTraces) -> int:
    """How many rows the index on start times gave to the query."""
    question = page_of_traces(query)
    with ledger.cursor() as cursor:
        micros.use(cursor.adapters)
        explain = psycopg.sql.SQL("EXPLAIN (ANALYZE, FORMAT JSON) {}").format(question.select)
        plans: list[Any] = cursor.execute(explain, question.parameters).fetchall()
    return sum(scanned(plans[0][0][0]["Plan"]))


def scanned(node: dict[str, Any]) -> list[int]:
    assert node["Node Type"] != "Seq Scan", node
    own = []
    if node.get("Index Name") == "traces_start":
        read = node["Actual Rows"] + node.get("Rows Removed by Filter", 0)
        own.append(int(read * node["Actual Loops"]))
    return [*own, *(each for child in node.get("Plans", ()) for each in scanned(child))]
