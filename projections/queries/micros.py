"""Times travel between Python and Postgres as they are in events: whole µs since 1970 UTC, exact in every year that Postgres
knows (datetime ends with the year 9999).
"""

import struct
from typing import Any, Final

from psycopg.abc import Buffer
from psycopg.adapt import AdaptersMap, Dumper, Loader
from psycopg.postgres import types
from psycopg.pq import Format

from spanfold.postgres.copying import PG_EPOCH_US

TIMESTAMPTZ: Final = types["timestamptz"].oid
_INT64: Final = struct.Struct(">q")


class Time(int):
    """A query's parameter: this many µs since 1970 UTC, as a timestamptz."""


class _TimeDumper(Dumper):
    format = Format.BINARY
    oid = TIMESTAMPTZ

    def dump(self, obj: Any) -> Buffer:
        return _INT64.pack(obj - PG_EPOCH_US)


class _TimeLoader(Loader):
    format = Format.BINARY

    def load(self, data: Buffer) -> int:
        us: int = _INT64.unpack(data)[0]
        return us + PG_EPOCH_US


def use(adapters: AdaptersMap) -> None:
    """From now on a timestamptz of a binary cursor is an int of µs since 1970 UTC, and `Time` is a parameter."""
    adapters.register_dumper(Time, _TimeDumper)
    adapters.register_loader(TIMESTAMPTZ, _TimeLoader)
