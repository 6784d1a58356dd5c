"""Wishes and questions. Within Python they are frozen dataclasses; over HTTP and for other languages they travel in envelopes,
`Command` and `Query`, whose data are the dataclass's own fields. `MessageTypes` turns one into the other.
"""

import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from typing import Annotated, Any, Final, Generic, Self, TypeVar

from pydantic import BeforeValidator, PydanticSchemaGenerationError, TypeAdapter, ValidationError, ValidationInfo

from spanfold.language.errors import InvalidInput, SpanfoldError
from spanfold.language.ids import event_id
from spanfold.language.json_values import closest, refuse_missing, refuse_unknown, time_us
from spanfold.language.positions import Position
from spanfold.language.times import now_us


def _read_time(value: Any, info: ValidationInfo) -> int:
    return time_us(value, info.field_name or "time")


Micros = Annotated[int, BeforeValidator(_read_time)]
"""µs since 1970 UTC; in an envelope also RFC 3339 text."""


class UnknownMessage(InvalidInput):
    """Nobody handles messages of this type."""


def new_id() -> str:
    """The id of a new message."""
    return str(uuid.uuid4())


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A wish in an envelope. `timestamp` is when it was wished, µs since 1970 UTC; `command_id` is the same when it is
    sent again, so that it happens once.
    """

    command_type: str
    aggregate_id: str
    command_data: Mapping[str, Any] = field(default_factory=dict)
    command_id: str = field(default_factory=new_id)
    timestamp: Micros = field(default_factory=now_us)


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A question in an envelope. `timestamp` is when it was asked, µs since 1970 UTC."""

    query_type: str
    query_data: Mapping[str, Any] = field(default_factory=dict)
    query_id: str = field(default_factory=new_id)
    timestamp: Micros = field(default_factory=now_us)


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainCommand:
    """What all wishes share: the aggregate that is to do it, who wishes it (`source`), when, and an id by which it is known
    again when it is sent again. `attempt` counts how often a conflict has sent it back.
    """

    aggregate_id: str
    source: str = "spanfold"
    command_id: str = field(default_factory=new_id)
    timestamp: Micros = field(default_factory=now_us)
    attempt: int = 0

    def again(self) -> Self:
        """The same wish after a conflict: what it appends has a new event id, because the first verdict is final."""
        return replace(self, attempt=self.attempt + 1)

    def record_id(self) -> bytes:
        """The event id of what it appends to a conditional topic: of this wish and attempt alone. Its time bits are zero,
        because whoever sends the wish again may give it another timestamp.
        """
        return event_id(0, type(self).__name__, self.aggregate_id, self.command_id, str(self.attempt))


R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainQuery(Generic[R]):
    """What all questions share; R is the type of their result. `at_least`: wait until the read models reflect these
    positions, such as that of one's own write.
    """

    at_least: tuple[Position, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer(Generic[R_co]):
    """A result, and the positions that it reflects: the last one of each partition that was folded into it."""

    result: R_co
    reflects: tuple[Position, ...] = ()


class NotYetReflected(SpanfoldError):
    """The read models have not reached what the question waits for. Ask again; `positions` are those that lack."""

    exit_code = 4

    def __init__(self, positions: tuple[Position, ...], waited_s: float) -> None:
        said = ", ".join(map(str, positions))
        super().__init__(f"the read models have not reached {said} within {waited_s:g} s: ask again")
        self.positions = positions


IN_ENVELOPE: Final = ("aggregate_id", "command_id", "timestamp")
_OUTSIDE: Final = (*IN_ENVELOPE, "attempt")

M = TypeVar("M", bound=DomainCommand | DomainQuery[Any])


class MessageTypes(Generic[M]):
    """Messages by the name of their type. `kind` is what they are called in errors: command or query."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._types: dict[str, tuple[type[M], TypeAdapter[M]]] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(self._types)

    def add(self, message_type: type[M]) -> None:
        """Know this dataclass. InvalidInput when its name is taken, or its fields can't be read from JSON."""
        name = message_type.__name__
        if name in self._types:
            raise InvalidInput(f"{self._kind} {name}: there is one of this name already")
        try:
            self._types[name] = (message_type, TypeAdapter(message_type))
        except PydanticSchemaGenerationError as error:
            raise InvalidInput(f"{self._kind} {name}: {error}") from error

    def refuse_unknown(self, name: str) -> None:
        """UnknownMessage unless the type of this name is known."""
        if name not in self._types:
            known = sorted(self._types)
            hint = closest(name, known)
            raise UnknownMessage(
                f"nobody handles the {self._kind} {name!r}{hint}; handled are {', '.join(known) or 'none'}"
            )

    def read(self, name: str, data: Mapping[str, Any], surroundings: Mapping[str, Any]) -> M:
        """The message of this type with these fields, and those of its envelope. InvalidInput names every field that is
        unknown, missing or wrong.
        """
        self.refuse_unknown(name)
        message_type, adapter = self._types[name]
        own = [each for each in fields(message_type) if each.name not in _OUTSIDE]
        refuse_unknown(data, [each.name for each in own], name)
        required = [each.name for each in own if each.default is MISSING and each.default_factory is MISSING]
        refuse_missing(data, required, name)
        try:
            return adapter.validate_python({**data, **surroundings})
        except ValidationError as error:
            raise InvalidInput(f"{name}: {'; '.join(_complaints(error))}") from error


def command_of(envelope: Command, types: MessageTypes[DomainCommand]) -> DomainCommand:
    """The typed command of an envelope."""
    surroundings = {name: getattr(envelope, name) for name in IN_ENVELOPE}
    return types.read(envelope.command_type, envelope.command_data, surroundings)


def query_of(envelope: Query, types: MessageTypes[DomainQuery[Any]]) -> DomainQuery[Any]:
    """The typed query of an envelope."""
    data = dict(envelope.query_data)
    if isinstance(wanted := data.get("at_least"), list | tuple):
        data["at_least"] = tuple(Position.parse(each) if isinstance(each, str) else each for each in wanted)
    return types.read(envelope.query_type, data, {})


def envelope_of(command: DomainCommand) -> Command:
    """The inverse of command_of."""
    own = [each.name for each in fields(command) if each.name not in _OUTSIDE]
    return Command(
        command_type=type(command).__name__,
        command_data={name: getattr(command, name) for name in own},
        **{name: getattr(command, name) for name in IN_ENVELOPE},
    )


def _complaints(error: ValidationError) -> Iterable[str]:
    for each in error.errors(include_url=False):
        yield f"{'.'.join(map(str, each['loc']))}: {each['msg']}, got {each['input']!r}"
