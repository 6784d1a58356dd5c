"""What an aggregate is: a functional core (initial, decide, evolve) and, around it, the classic object with id and version."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final, Generic, NamedTuple, TypeVar

from spanfold.application.messages import DomainCommand
from spanfold.language.errors import InvalidInput
from spanfold.language.events import DomainEvent
from spanfold.language.topics import Topic

S = TypeVar("S")

PLAIN_SNAPSHOT: Final = "PlainSnapshot"
"""The Avro record of a state that has no schema of its own."""


class AggregateState(NamedTuple):
    """The state of an aggregate, and the greatest version among the records that are in it."""

    aggregate_id: str
    version: int
    state: Any


class Aggregate(ABC, Generic[S]):
    """One aggregate; S is its state, an immutable value.

    The core is four pure functions, which read no clock and draw no random numbers:
    `initial(id)`, `decide(state, command)`, `evolve(state, event)`, and the pair `as_plain(state)` / `from_plain(plain)` for
    snapshots. On a conditional topic `evolve` sees the events by version; on a telemetry topic in any order, and must give the
    same state for each. Raise `fold_version` when the same events would give another state: snapshots of another are ignored.

    `snapshot` names the Avro record (schemas/avro) that holds a plain state; without one of its own it is kept as JSON.
    `is_closed(state)` says that nothing more is expected, so that the snapshot worker need not wait for it.

    An instance is the classic shape: `id`, `version` (of the last record applied, 0 if there is none), `state`, and `pending`,
    the events that `handle` has decided and nobody has appended yet; they are in `state` and not counted in `version`.
    """

    topic: ClassVar[Topic]
    events: ClassVar[tuple[type[DomainEvent], ...]]
    commands: ClassVar[tuple[type[DomainCommand], ...]]
    fold_version: ClassVar[int] = 1
    snapshot: ClassVar[str] = PLAIN_SNAPSHOT

    @staticmethod
    @abstractmethod
    def initial(aggregate_id: str) -> Any:
        """The state of an aggregate of which nothing is known."""

    @staticmethod
    @abstractmethod
    def decide(state: Any, command: Any) -> Sequence[DomainEvent]:
        """The events that the command adds; none when what it wishes is so already. CommandRefused when a rule forbids it."""

    @staticmethod
    @abstractmethod
    def evolve(state: Any, event: Any) -> Any:
        """The state after the event. It refuses nothing: what the log has accepted has happened."""

    @classmethod
    def evolve_all(cls, state: Any, recorded: Sequence[tuple[DomainEvent, int]]) -> Any:
        """The state after these events of the log, each with its record's version."""
        for event, _ in recorded:
            state = cls.evolve(state, event)
        return state

    @staticmethod
    def is_closed(state: Any) -> bool:
        """Whether nothing more is expected of it; what comes nevertheless is taken in."""
        return False

    @staticmethod
    @abstractmethod
    def as_plain(state: Any) -> Mapping[str, Any]:
        """The state as maps, lists, texts, numbers and bytes, as Avro takes them."""

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
        """Take in an event of the log. `version` is its record's, the next one unless it is said. InvalidInput when the
        event is another aggregate's.
        """
        if event.aggregate_id != self.id or not isinstance(event, self.events):
            raise InvalidInput(
                f"{event.event_type} of {event.aggregate_id} is no event of {type(self).__name__} {self.id}"
            )
        reached = self.version + 1 if version is None else version
        self.state = self.evolve_all(self.state, [(event, reached)])
        self.version = max(self.version, reached)

    def handle(self, command: DomainCommand) -> Sequence[DomainEvent]:
        """Decide, take the events in as `pending` ones, and return them."""
        events = self.decide(self.state, command)
        for event in events:
            self.state = self.evolve(self.state, event)
        self.pending += events
        return events

    def appended(self, version: int) -> None:
        """The pending events are in the log now, and this is the version that the last of them has there."""
        self.pending = []
        self.version = max(self.version, version)
