"""The aggregates of spanfold and of every installed package, and the events that belong to them."""

from collections.abc import Mapping
from functools import lru_cache
from importlib.metadata import entry_points
from typing import Any, Final

from spanfold.application.aggregates.base import PLAIN_SNAPSHOT, Aggregate
from spanfold.language.entry_points import load
from spanfold.language.errors import Misconfigured
from spanfold.language.events import EVENT_TYPES, DomainEvent
from spanfold.language.topics import Topic

GROUP: Final = "spanfold.aggregates"


@lru_cache(maxsize=1)
def installed_aggregates() -> Mapping[str, type[Aggregate[Any]]]:
    """Aggregate types by the name of their entry point. Misconfigured when an entry is not an aggregate, two have the same name,
    or an aggregate has events that are not on its topic.
    """
    aggregates: dict[str, type[Aggregate[Any]]] = {}
    for entry in entry_points(group=GROUP):
        loaded = load(entry)
        if not (isinstance(loaded, type) and issubclass(loaded, Aggregate)):
            raise Misconfigured(
                f"entry point {GROUP}: {entry.name} = {entry.value} must be an Aggregate, got {loaded!r}"
            )
        if entry.name in aggregates:
            raise Misconfigured(f"entry point {GROUP}: two packages have an aggregate named {entry.name}: rename one")
        _refuse_strays(entry.name, loaded)
        aggregates[entry.name] = loaded
    return aggregates


@lru_cache(maxsize=1)
def _event_classes() -> Mapping[str, type[DomainEvent]]:
    of_aggregates = {cls.__name__: cls for aggregate in installed_aggregates().values() for cls in aggregate.events}
    return {**of_aggregates, **EVENT_TYPES}


def event_class(event_type: str) -> type[DomainEvent]:
    """The class of an event type of spanfold or of an installed aggregate. KeyError for an unknown type."""
    return _event_classes()[event_type]


def aggregate_of(topic: Topic) -> type[Aggregate[Any]]:
    """The aggregate whose events are on this topic. Misconfigured unless there is exactly one: a key must identify its
    aggregate.
    """
    aggregates = {name: aggregate for name, aggregate in installed_aggregates().items() if aggregate.topic == topic}
    if len(aggregates) != 1:
        names = " and ".join(aggregates) or "none"
        raise Misconfigured(f"topic {topic.name} must have exactly one aggregate, it has {names}")
    return next(iter(aggregates.values()))


def snapshot_types() -> frozenset[str]:
    """Names of the Avro records that hold states of installed aggregates."""
    return frozenset({PLAIN_SNAPSHOT, *(aggregate.snapshot for aggregate in installed_aggregates().values())})


def _refuse_strays(name: str, aggregate: type[Aggregate[Any]]) -> None:
    strays = [cls.__name__ for cls in aggregate.events if cls.__name__ not in aggregate.topic.event_types]
    if strays:
        raise Misconfigured(
            f"aggregate {name}: add {', '.join(strays)} to the event_types of topic {aggregate.topic.name}"
        )
