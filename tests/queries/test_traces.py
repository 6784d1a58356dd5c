"""Queries about traces, on the real stack, against plain Python."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from spanfold.application.buses import QueryBus
from spanfold.application.queries import (
    MAX_LIMIT,
    FindTraces,
    GetOperationStats,
    GetServiceDependencies,
    GetTrace,
    TraceReadModel,
)
from spanfold.language.events import SpanRecorded, TraceCompleted, TraceCreated, TraceEvent, TraceFailed
from spanfold.language.settings import Settings
from spanfold.language.times import now_us
from spanfold.language.topics import TRACES
from tests.queries import reference
from tests.support.load import SERVICES, events
from tests.support.publishing import publish_all
from tests.support.topics import last_positions
from tests.support.trace_rows import told
from tests.support.workers import Worker

MINUTE = 60_000_000
DAY = 1440 * MINUTE


def some_events(rng: random.Random, count: int) -> list[TraceEvent]:
    """Of traces alone, with some that nothing but an end is known of, and some with lists as tags."""
    source, found = events(rng, now_us()), list[TraceEvent]()
    while len(found) < count:
        event = next(source)
        if isinstance(event, TraceCreated | SpanRecorded | TraceCompleted | TraceFailed):
            found.append(event)
    at = now_us()
    for number in range(9):
        said: dict[str, Any] = {"aggregate_id": f"end-{number}", "occurred_at": at, "source": "test", "end_time": at}
        found.append(TraceCompleted(tags={"list": ["a", number % 2], "n": number / 4}, **said))
    return found


async def pages(bus: QueryBus, query: FindTraces) -> list[TraceReadModel]:
    """All that the query finds, page by page."""
    found: list[TraceReadModel] = []
    while True:
        page = (await bus.ask(query)).result
        assert len(page.items) <= query.limit
        found += page.items
        if page.next_cursor is None:
            return found
        assert len(page.items) == query.limit
        query = replace(query, cursor=page.next_cursor, at_least=())


def questions(rng: random.Random, now: int) -> Iterator[FindTraces]:
    """Any combination of what can be asked for."""
    while True:
        low = rng.randrange(4_000_000)
        since = now - rng.choice((600_000_000, DAY, 40 * DAY))
        choices: dict[str, Any] = {
            "service_name": rng.choice(SERVICES),
            "operation_name": rng.choice(("root", "other")),
            "status": rng.choice(("started", "completed", "failed", "lost")),
            "tags": rng.choice(({"user": rng.randrange(9)}, {"n": 0.5}, {"ok": True, "user": 3}, {"list": ["a"]},
                                {"list": ["a", 1]}, {"ok": 1}, {"n": "two", "none": 0})),
            "min_duration_us": low,
            "max_duration_us": low + rng.randrange(4_000_000),
            "start_from": since,
            "start_before": since + rng.choice((300_000_000, DAY, 41 * DAY)),
        }  # fmt: skip
        chosen = rng.sample(sorted(choices), rng.choice((0, 1, 1, 1, 2, 2, 3)))
        yield FindTraces(limit=rng.choice((1, 7, 100, MAX_LIMIT)), **{name: choices[name] for name in chosen})


@pytest.mark.parametrize("seed", [1, 2])
async def test_answers_are_what_plain_python_says(
    stack_settings: Settings, bus: QueryBus, worker: Worker, seed: int
) -> None:
    rng = random.Random(seed)
    published = some_events(rng, 3000)
    publish_all(stack_settings, published)
    reached = last_positions(stack_settings, TRACES)
    unique: Sequence[TraceEvent] = list({each.event_id: each for each in published}.values())
    expected, rows = reference.traces(unique), told(unique)

    answer = await bus.ask(FindTraces(at_least=reached))
    assert answer.reflects == reached
    for _, query in zip(range(60), questions(rng, now_us()), strict=False):
        fitting = [trace for trace in expected if reference.fits(trace, query)]
        # a page of one each is slow: the first ones do
        if query.limit == 1:
            page = (await bus.ask(query)).result
            assert list(page.items) == fitting[:1], query
        else:
            assert await pages(bus, query) == fitting, query

    for trace in rng.sample(expected, 20):
        assert (await bus.ask(GetTrace(trace_id=trace.id))).result == trace
    assert (await bus.ask(GetTrace(trace_id="nobody"))).result is None

    minute = now_us() // MINUTE * MINUTE
    for since, until in ((None, None), (minute - 5 * MINUTE, None), (minute - 9 * MINUTE, minute - 4 * MINUTE)):
        calls = GetServiceDependencies(start_from=since, start_before=until)
        assert (await bus.ask(calls)).result == reference.dependencies(rows, calls)
        for service in (None, "shop", SERVICES[-1]):
            operations = GetOperationStats(service_name=service, start_from=since, start_before=until)
            assert (await bus.ask(operations)).result == reference.stats(rows, operations)
    assert len(rows.dependencies) > 100


def started(number: int, start: int) -> TraceCreated:
    return TraceCreated(
        aggregate_id=f"t-{number:05}", occurred_at=start, source="test", service_name="shop", operation_name="pay",
        start_time=start,
    )  # fmt: skip


async def test_pages_hold_still_while_traces_come(stack_settings: Settings, bus: QueryBus, worker: Worker) -> None:
    rng, now = random.Random(7), now_us()
    # few times, so that pages end among traces that started in the same microsecond
    there = [started(number, now - rng.randrange(30) * MINUTE) for number in range(300)]
    orphans = [TraceCompleted(aggregate_id=f"e-{n}", occurred_at=now, source="test", end_time=now) for n in range(20)]
    publish_all(stack_settings, [*there, *orphans])
    query = FindTraces(limit=11, at_least=last_positions(stack_settings, TRACES))
    seen: list[str] = []
    number = 1000
    while True:
        page = (await bus.ask(query)).result
        seen += [trace.id for trace in page.items]
        if page.next_cursor is None:
            break
        coming = [started(number + each, now - rng.randrange(30) * MINUTE) for each in range(5)]
        publish_all(stack_settings, coming)
        number += len(coming)
        query = replace(query, cursor=page.next_cursor, at_least=last_positions(stack_settings, TRACES))
    assert len(seen) == len(set(seen))
    order = [each.aggregate_id for each in sorted(there, key=lambda each: (-each.start_time, each.aggregate_id))]
    order += sorted(each.aggregate_id for each in orphans)
    was_there = set(order)
    assert [trace_id for trace_id in seen if trace_id in was_there] == order
    assert len(seen) > len(order)
