"""Ids as value objects: text that is checked once, with a type of its own for each kind."""

import re
import secrets
from typing import ClassVar, Final, Self

from spanfold.language.errors import InvalidInput

MAX_ID_BYTES: Final = 512
"""The longest id in UTF-8. It is a record's key, and a record with a longer key is rejected."""

_UNSTORABLE: Final = re.compile("[\0\ud800-\udfff]")


class Id(str):
    """Text of 1 to 512 bytes of UTF-8, without NUL. InvalidInput for anything else."""

    __slots__ = ()

    def __new__(cls, value: str) -> Self:
        if not isinstance(value, str):
            raise InvalidInput(f"{cls.__name__}: expected text, got {value!r}")
        if unstorable := _UNSTORABLE.search(value):
            raise InvalidInput(f"{cls.__name__}: the character at position {unstorable.start()} can't be stored")
        if not 1 <= len(value.encode()) <= MAX_ID_BYTES:
            raise InvalidInput(f"{cls.__name__}: expected 1 to {MAX_ID_BYTES} bytes, got {len(value.encode())}")
        return super().__new__(cls, value)

    @classmethod
    def known(cls, value: str) -> Self:
        """An id that is already in the log, whatever it is; it is not checked."""
        return super().__new__(cls, value)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"


class _RandomId(Id):
    __slots__ = ()
    random_bytes: ClassVar[int]

    @classmethod
    def new(cls) -> Self:
        """A random id, with as many hex digits as OpenTelemetry's."""
        return cls(secrets.token_hex(cls.random_bytes))


class TraceId(_RandomId):
    """Id of a trace: 32 hex digits with OpenTelemetry."""

    __slots__ = ()
    random_bytes = 16


class SpanId(_RandomId):
    """Id of a span, unique within its trace: 16 hex digits with OpenTelemetry."""

    __slots__ = ()
    random_bytes = 8


class ServiceId(Id):
    """Id of a service: its name, OpenTelemetry's service.name."""

    __slots__ = ()


class InstanceId(Id):
    """Id of a running instance of a service."""

    __slots__ = ()
