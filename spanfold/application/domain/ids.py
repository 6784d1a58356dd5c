"""Ids as value objects: texts that have been checked once, and that a type checker tells apart."""

import re
import secrets
from typing import ClassVar, Final, Self

from spanfold.language.errors import InvalidInput

MAX_ID_BYTES: Final = 512
"""Of an id in UTF-8: it is a record's key, and the log's readers reject what is longer."""

_UNSTORABLE: Final = re.compile("[\0\ud800-\udfff]")


class Id(str):
    """A text of 1 to 512 bytes of UTF-8 without NUL. InvalidInput for any other."""

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
        """Of one that the log has, whatever it is: not checked."""
        return super().__new__(cls, value)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"


class _RandomId(Id):
    __slots__ = ()
    random_bytes: ClassVar[int]

    @classmethod
    def new(cls) -> Self:
        """A random one, of as many hex digits as OpenTelemetry's."""
        return cls(secrets.token_hex(cls.random_bytes))


class TraceId(_RandomId):
    """Of a trace: 32 hex digits with OpenTelemetry."""

    __slots__ = ()
    random_bytes = 16


class SpanId(_RandomId):
    """Of a span, unique within its trace: 16 hex digits with OpenTelemetry."""

    __slots__ = ()
    random_bytes = 8


class ServiceId(Id):
    """Of a service: its name, OpenTelemetry's service.name."""

    __slots__ = ()


class InstanceId(Id):
    """Of one running instance of a service."""

    __slots__ = ()
