"""A topic's event types are declared once, and a new one is noticed by every fold, reference and property test."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from types import UnionType
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, Phase, find, settings
from hypothesis import strategies as st

from spanfold.application.aggregates import Aggregate, aggregate_of, installed_aggregates
from spanfold.language.event_json import PUBLISHABLE
from spanfold.language.events import (
    EVENT_TYPES,
    DomainEvent,
    LogEvent,
    MetricEvent,
    ServiceEvent,
    TraceEvent,
    event_classes,
)
from spanfold.language.topics import LOGS, METRICS, SERVICES, TRACES, Topic, TopicKind, installed_topics
from spanfold.projections.projection import Projection, installed
from tests import test_event_json_laws as in_json
from tests.faults import reference as faulty
from tests.projections import test_logs, test_metrics, test_services
from tests.support import load
from tests.support import strategies as of_traces
from tests.support import trace_rows as reference

CLASSES: dict[Topic, type[DomainEvent] | UnionType] = {
    TRACES: TraceEvent,
    METRICS: MetricEvent,
    LOGS: LogEvent,
    SERVICES: ServiceEvent,
}

UNKNOWN = {"aggregate_id": "a", "occurred_at": 0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Unknown(DomainEvent):
    """An event that no topic has."""


def by_name(topic: Topic) -> str:
    return topic.name


# One declaration


@pytest.mark.parametrize("topic", CLASSES, ids=by_name)
def test_the_types_of_a_topic_are_the_classes_of_its_union(topic: Topic) -> None:
    union = CLASSES[topic]
    assert event_classes(topic) == (get_args(union) or (union,))


@pytest.mark.parametrize("topic", CLASSES, ids=by_name)
def test_the_types_of_a_topic_are_the_classes_that_name_it_as_their_home(topic: Topic) -> None:
    at_home = {event_type for event_type, cls in EVENT_TYPES.items() if cls.home == topic}
    assert at_home == set(topic.event_types)


@pytest.mark.parametrize("topic", [TRACES, METRICS, SERVICES], ids=by_name)
def test_an_aggregate_takes_every_type_of_its_topic(topic: Topic) -> None:
    assert set(aggregate_of(topic).events) == set(event_classes(topic))


# No fold passes over a type that it does not know; mypy checks that each knows all of its topic's


@pytest.mark.parametrize("projection", installed().values(), ids=installed())
def test_a_fold_fails_on_a_type_that_it_does_not_know(projection: Projection) -> None:
    with pytest.raises(AssertionError, match="unreachable"):
        projection.fold([(0, "Unknown", UNKNOWN)])


@pytest.mark.parametrize("aggregate", installed_aggregates().values(), ids=installed_aggregates())
def test_an_aggregate_fails_on_a_type_that_it_does_not_know(aggregate: type[Aggregate[Any]]) -> None:
    event = Unknown(aggregate_id="a", occurred_at=0, source="test")
    with pytest.raises(AssertionError, match="unreachable"):
        aggregate.evolve(aggregate.initial("a"), event)


def test_the_reference_fails_on_a_type_that_it_does_not_know() -> None:
    event: Any = Unknown(aggregate_id="a", occurred_at=0, source="test")
    with pytest.raises(AssertionError, match="unreachable"):
        reference.told([event])


# Property tests draw every type, so that each fold is held to its reference with it

DRAWN: dict[str, tuple[st.SearchStrategy[Any], Sequence[str]]] = {
    "json": (in_json.EVENTS, PUBLISHABLE),
    "traces": (of_traces.events, TRACES.event_types),
    "metrics": (test_metrics.points, METRICS.event_types),
    "logs": (test_logs.records(), LOGS.event_types),
    "services": (test_services.about(st.just("a")), SERVICES.event_types),
}

any_example = settings(
    phases=[Phase.generate], max_examples=1000, suppress_health_check=list(HealthCheck), database=None
)


@pytest.mark.parametrize(
    ("laws", "event_type"), [(laws, event_type) for laws, (_, types) in DRAWN.items() for event_type in types]
)
def test_property_tests_draw_every_type_of_their_topic(laws: str, event_type: str) -> None:
    events, _ = DRAWN[laws]
    assert find(events, lambda event: event.event_type == event_type, settings=any_example)


def test_the_load_of_fault_schedules_has_every_type_of_the_telemetry_topics() -> None:
    telemetry = [topic for topic in installed_topics() if topic.kind is TopicKind.TELEMETRY]
    drawn = {event.event_type for event in islice(load.events(random.Random(1), now_us=0), 2000)}
    assert drawn == {event_type for topic in telemetry for event_type in topic.event_types} == faulty.FOLDED
