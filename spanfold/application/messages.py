"""Commands and queries. In Python they are frozen dataclasses. Over HTTP and in other languages they travel in envelopes,
`Command` and `Query`, whose data are the fields of the dataclass. `MessageTypes` converts between the two.
"""

import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from http import HTTPStatus
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
"""µs since 1970 UTC; in an envelope it may also be RFC 3339 text."""


class UnknownMessage(InvalidInput):
    """No handler is registered for messages of this type."""

    http_status = HTTPStatus.NOT_FOUND


def new_id() -> str:
    """The id of a new message."""
    return str(uuid.uuid4())


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A command in an envelope. `timestamp` is when it was issued, µs since 1970 UTC. Send a command again with the same
    `command_id`, so that it takes effect once.
    """

    command_type: str
    aggregate_id: str
    command_data: Mapping[str, Any] = field(default_factory=dict)
    command_id: str = field(default_factory=new_id)
    timestamp: Micros = field(default_factory=now_us)


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A query in an envelope. `timestamp` is when it was issued, µs since 1970 UTC."""

    query_type: str
    query_data: Mapping[str, Any] = field(default_factory=dict)
    query_id: str = field(default_factory=new_id)
    timestamp: Micros = field(default_factory=now_us)


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainCommand:
    """Base of all commands: the aggregate that it is for, who issued it (`source`) and when, and an id that stays the same when
    it is sent again. `attempt` counts the conflicts that it has met.
    """

    aggregate_id: str
    source: str = "spanfold"
    command_id: str = field(default_factory=new_id)
    timestamp: Micros = field(default_factory=now_us)
    attempt: int = 0

    def again(self) -> Self:
        """The same command after a conflict. Its events get a new event id, because the verdict on the first one is final."""
        return replace(self, attempt=self.attempt + 1)

    def record_id(self) -> bytes:
        """The event id of the record that it appends to a conditional topic; it depends on the command and attempt only. Its time
        bits are zero, because a command that is sent again may have another timestamp.
        """
        return event_id(0, type(self).__name__, self.aggregate_id, self.command_id, str(self.attempt))


R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainQuery(Generic[R]):
    """Base of all queries; R is the type of their result. With `at_least` they wait until the read models reflect these
    positions, such as the position of your own write.
    """

    at_least: tuple[Position, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer(Generic[R_co]):
    """A result, and the positions that it reflects: of each partition the last one that was folded."""

    result: R_co
    reflects: tuple[Position, ...] = ()


class NotYetReflected(SpanfoldError):
    """The read models did not reach the positions that the query waits for. Try again; `positions` are those still missing.
    `because` says what keeps them from it, if anything does.
    """

    exit_code = 4
    http_status = HTTPStatus.SERVICE_UNAVAILABLE

    def __init__(self, positions: tuple[Position, ...], waited_s: float, because: str = "") -> None:
        missing = ", ".join(map(str, positions))
        super().__init__(f"the read models did not reach {missing} within {waited_s:g} s: {because or 'try again'}")
        self.positions = positions


IN_ENVELOPE: Final = ("aggregate_id", "command_id", "timestamp")
_OUTSIDE: Final = (*IN_ENVELOPE, "attempt")

M = TypeVar("M", bound=DomainCommand | DomainQuery[Any])


class MessageTypes(Generic[M]):
    """Message types by name. `kind` is their name in errors: command or query."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._types: dict[str, tuple[type[M], TypeAdapter[M]]] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(self._types)

    def add(self, message_type: type[M]) -> None:
        """Add this dataclass. InvalidInput when its name is taken, or its fields can't be read from JSON."""
        name = message_type.__name__
        if name in self._types:
            raise InvalidInput(f"{self._kind} {name} is already registered")
        try:
            self._types[name] = (message_type, TypeAdapter(message_type))
        except PydanticSchemaGenerationError as error:
            raise InvalidInput(f"{self._kind} {name}: {error}") from error

    def refuse_unknown(self, name: str) -> None:
        """UnknownMessage unless a type of this name was added."""
        if name not in self._types:
            known = sorted(self._types)
            hint = closest(name, known)
            raise UnknownMessage(
                f"no handler for the {self._kind} {name!r}{hint}; handlers exist for {', '.join(known) or 'none'}"
            )

    def read(self, name: str, data: Mapping[str, Any], envelope: Mapping[str, Any]) -> M:
        """The message of this type with its own fields in `data` and those of its envelope in `envelope`. InvalidInput names
        every field that is unknown, missing or wrong.
        """
        self.refuse_unknown(name)
        message_type, adapter = self._types[name]
        own = [own_field for own_field in fields(message_type) if own_field.name not in _OUTSIDE]
        refuse_unknown(data, [own_field.name for own_field in own], name)
        required = [own_field.name for own_field in own if own_field.default is own_field.default_factory is MISSING]
        refuse_missing(data, required, name)
        try:
            return adapter.validate_python({**data, **envelope})
        except ValidationError as error:
            raise InvalidInput(f"{name}: {'; '.join(_complaints(error))}") from error


def command_of(envelope: Command, types: MessageTypes[DomainCommand]) -> DomainCommand:
    """The typed command of an envelope."""
    outside = {name: getattr(envelope, name) for name in IN_ENVELOPE}
    return types.read(envelope.command_type, envelope.command_data, outside)


def query_of(envelope: Query, types: MessageTypes[DomainQuery[Any]]) -> DomainQuery[Any]:
    """The typed query of an envelope."""
    data = dict(envelope.query_data)
    if isinstance(positions := data.get("at_least"), list | tuple):
        data["at_least"] = tuple(Position.parse(text) if isinstance(text, str) else text for text in positions)
    return types.read(envelope.query_type, data, {})


def envelope_of(command: DomainCommand) -> Command:
    """The inverse of command_of."""
    own = [own_field.name for own_field in fields(command) if own_field.name not in _OUTSIDE]
    return Command(
        command_type=type(command).__name__,
        command_data={name: getattr(command, name) for name in own},
        **{name: getattr(command, name) for name in IN_ENVELOPE},
    )


def _complaints(error: ValidationError) -> Iterable[str]:
    for detail in error.errors(include_url=False):
        yield f"{'.'.join(map(str, detail['loc']))}: {detail['msg']}, got {detail['input']!r}"
