"""The base of aggregates: a functional core (initial, decide, evolve) in a classic object with id and version."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final, Generic, NamedTuple, TypeVar

from spanfold.application.messages import DomainCommand
from spanfold.language.errors import InvalidInput
from spanfold.language.events import DomainEvent
from spanfold.language.topics import Topic

S = TypeVar("S")

PLAIN_SNAPSHOT: Final = "PlainSnapshot"
"""The Avro record for states without a schema of their own."""


class AggregateState(NamedTuple):
    """The state of an aggregate, and the greatest version among the records in it."""

    aggregate_id: str
    version: int
    state: Any


class Aggregate(ABC, Generic[S]):
    """An aggregate whose state S is an immutable value.

    Its core are pure functions, without clock and randomness: `initial(id)`, `decide(state, command)`, `evolve(state, event)`,
    and `as_plain(state)` and `from_plain(plain)` for snapshots. On a conditional topic `evolve` gets the events by version. On a
    telemetry topic it gets them in any order, and must return the same state for every order. Raise `fold_version` when the same
    events would give another state: snapshots of other fold versions are ignored.

    `snapshot` names the Avro record (schemas/avro) for plain states; by default they are stored as JSON. When `is_closed(state)`,
    the snapshot worker does not wait for more events.

    An instance has an `id`, a `version` (of the last record applied, 0 if none), a `state`, and `pending` events: `handle` has
    decided them, but they are not appended yet. They are in `state`, and `version` does not count them.
    """

    topic: ClassVar[Topic]
    events: ClassVar[tuple[type[DomainEvent], ...]]
    commands: ClassVar[tuple[type[DomainCommand], ...]]
    fold_version: ClassVar[int] = 1
    snapshot: ClassVar[str] = PLAIN_SNAPSHOT

    @staticmethod
    @abstractmethod
    def initial(aggregate_id: str) -> Any:
        """The state of an aggregate without events."""

    @staticmethod
    @abstractmethod
    def decide(state: Any, command: Any) -> Sequence[DomainEvent]:
        """The events that the command adds; none if it has no effect. CommandRefused if it violates a rule in this state."""

    @staticmethod
    @abstractmethod
    def evolve(state: Any, event: Any) -> Any:
        """The state after the event. It must not refuse the event: the log has accepted it."""

    @classmethod
    def evolve_all(cls, state: Any, recorded: Sequence[tuple[DomainEvent, int]]) -> Any:
        """The state after these events of the log; each comes with its record's version."""
        for event, _ in recorded:
            state = cls.evolve(state, event)
        return state

    @staticmethod
    def is_closed(state: Any) -> bool:
        """Whether no more events are expected. Events that arrive anyway are applied."""
        return False

    @staticmethod
    @abstractmethod
    def as_plain(state: Any) -> Mapping[str, Any]:
        """The state as maps, lists, text, numbers and bytes, ready for Avro."""

    @staticmethod
    @abstractmethod
    def from_plain(plain: Mapping[str, Any]) -> Any:
        """The inverse of as_plain."""

    def __init__(self, id: str, *, state: S | None = None, version: int = 0) -> None:
        self.id = id
        self.version = version
        self.state: S = self.initial(id) if state is None else state
        self.pending: list[DomainEvent] = []

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.id!r}, version={self.version}, state={self.state!r})"

    def apply_event(self, event: DomainEvent, version: int | None = None) -> None:
        """Apply an event of the log. `version` is its record's, by default the next one. InvalidInput when the event belongs to
        another aggregate.
        """
        if event.aggregate_id != self.id or not isinstance(event, self.events):
            raise InvalidInput(
                f"{event.event_type} of {event.aggregate_id} is not an event of {type(self).__name__} {self.id}"
            )
        reached = self.version + 1 if version is None else version
        self.state = self.evolve_all(self.state, [(event, reached)])
        self.version = max(self.version, reached)

    def handle(self, command: DomainCommand) -> Sequence[DomainEvent]:
        """Decide, apply the new events, and return them. They are `pending` until `appended` is called."""
        events = self.decide(self.state, command)
        for event in events:
            self.state = self.evolve(self.state, event)
        self.pending += events
        return events

    def appended(self, version: int) -> None:
        """The pending events are now in the log; `version` is the version of the last one."""
        self.pending = []
        self.version = max(self.version, version)
