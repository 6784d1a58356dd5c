"""Queries about metrics, on the real stack, against plain Python."""

import random
from dataclasses import replace

from spanfold.application.buses import QueryBus
from spanfold.application.queries import GetMetricsByName, GetMetricSeries
from spanfold.language.events import MetricUpdated
from spanfold.language.settings import Settings
from spanfold.language.times import now_us
from spanfold.language.topics import METRICS
from tests.queries import reference
from tests.support.load import events
from tests.support.publishing import publish_all
from tests.support.topics import last_positions
from tests.support.workers import Worker


async def test_answers_are_what_plain_python_says(stack_settings: Settings, bus: QueryBus, worker: Worker) -> None:
    rng, now = random.Random(5), now_us()
    source = events(rng, now)
    points = [event for event in (next(source) for _ in range(6000)) if isinstance(event, MetricUpdated)]
    points += [
        replace(points[0], value=value, event_id=b"", occurred_at=now + at)
        for at, value in enumerate((float("nan"), float("inf"), 1 << 60))
    ]
    publish_all(stack_settings, points)
    reached = last_positions(stack_settings, METRICS)

    for name in ("cpu", "calls", "latency", "nobody"):
        for service in (None, "shop"):
            query = GetMetricsByName(name=name, service_name=service, limit=rng.choice((3, 1000)), at_least=reached)
            answer = await bus.ask(query)
            assert same(answer.result, reference.latest(points, query))
            assert answer.reflects == reached
    for series in {each.aggregate_id for each in points[:100]} | {points[0].aggregate_id}:
        for since, limit in ((None, 1000), (now - 150_000_000, 1000), (now + 10, 5), (None, 4)):
            asked = GetMetricSeries(series_id=series, start_from=since, start_before=now + 60_000_000, limit=limit)
            found = (await bus.ask(asked)).result
            assert found
            assert same(found, reference.series(points, asked))
    assert (await bus.ask(GetMetricSeries(series_id="nobody"))).result is None


def same(one: object, other: object) -> bool:
    """Equal, where NaN equals NaN."""
    assert repr(one) == repr(other)
    return True
