"""The aggregates of spanfold and of every installed package, and the events that belong to them."""

from collections.abc import Mapping
from functools import lru_cache
from importlib.metadata import entry_points
from typing import Any, Final

from spanfold.application.aggregates.base import PLAIN_SNAPSHOT, Aggregate
from spanfold.language.errors import Misconfigured
from spanfold.language.events import EVENT_TYPES, DomainEvent
from spanfold.language.topics import Topic

GROUP: Final = "spanfold.aggregates"


@lru_cache(maxsize=1)
def installed_aggregates() -> Mapping[str, type[Aggregate[Any]]]:
    """Aggregate types by the name of their entry. Misconfigured when an entry is no aggregate, two have one name, or an
    aggregate's events are not those of its topic.
    """
    found: dict[str, type[Aggregate[Any]]] = {}
    for entry in entry_points(group=GROUP):
        loaded = entry.load()
        if not (isinstance(loaded, type) and issubclass(loaded, Aggregate)):
            raise Misconfigured(f"entry point {GROUP}: {entry.name} = {entry.value} is no Aggregate but {loaded!r}")
        if entry.name in found:
            raise Misconfigured(f"entry point {GROUP}: two packages name an aggregate {entry.name}: rename one")
        _refuse_strays(entry.name, loaded)
        found[entry.name] = loaded
    return found


@lru_cache(maxsize=1)
def _event_classes() -> Mapping[str, type[DomainEvent]]:
    of_aggregates = {cls.__name__: cls for each in installed_aggregates().values() for cls in each.events}
    return {**of_aggregates, **EVENT_TYPES}


def event_class(event_type: str) -> type[DomainEvent]:
    """The class of an event type, spanfold's or one of an installed aggregate. KeyError for a type that nobody knows."""
    return _event_classes()[event_type]


def aggregate_of(topic: Topic) -> type[Aggregate[Any]]:
    """The aggregate whose events lie in this topic. Misconfigured when there is none, or more than one: then a key would not
    say whose it is.
    """
    found = {name: each for name, each in installed_aggregates().items() if each.topic == topic}
    if len(found) != 1:
        named = " and ".join(found) or "none"
        raise Misconfigured(f"the aggregate of {topic.name}: there must be one, there is {named}")
    return next(iter(found.values()))


def snapshot_types() -> frozenset[str]:
    """The Avro records that hold states of installed aggregates."""
    return frozenset({PLAIN_SNAPSHOT, *(each.snapshot for each in installed_aggregates().values())})


def _refuse_strays(name: str, aggregate: type[Aggregate[Any]]) -> None:
    strays = [cls.__name__ for cls in aggregate.events if cls.__name__ not in aggregate.topic.event_types]
    if strays:
        raise Misconfigured(
            f"aggregate {name}: {', '.join(strays)} is not among the event_types of {aggregate.topic.name}: name it there"
        )
