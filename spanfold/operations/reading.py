"""Read-only sessions on the read models, and values as JSON has them."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import orjson
import psycopg
from psycopg.abc import Buffer
from psycopg.adapt import Loader

from spanfold.operations.postgres_errors import reads_translated
from spanfold.postgres import documents
from spanfold.postgres.connections import connect
from spanfold.postgres.sessions import READ_ONLY


def without_password(dsn: str | None) -> str | None:
    """The DSN as it may be shown: *** stands for the password."""
    return dsn and _PASSWORD.sub(lambda match: f"{match[1]}***@" if match[1] else f"{match[2]}***", dsn)


_PASSWORD: Final = re.compile(r"(://[^:/@?]*:)[^@]*@|([?&]password=)[^&]*")


@contextmanager
def reading(dsn: str, application_name: str) -> Iterator[psycopg.Connection[Any]]:
    """A read-only session; errors within the block are those of `reads_translated`."""
    with (
        reads_translated(),
        connect(dsn, application_name, READ_ONLY, autocommit=False) as connection,
    ):
        documents.use(connection)
        yield connection


class TextLoader(Loader):
    """Keeps what Postgres writes: Python's dates and times end at the year 9999, Postgres' don't."""

    def load(self, data: Buffer) -> str:
        return bytes(data).decode()


class IsoLoader(TextLoader):
    """A time as ISO 8601, in UTC where it has a zone."""

    def load(self, data: Buffer) -> str:
        text = super().load(data).replace(" ", "T", 1)
        return f"{text}:00" if text.endswith("+00") else text


class DocumentLoader(TextLoader):
    """A json or jsonb value, with doubles for numbers beyond 64 bits; as Postgres writes it where that can't be read."""

    def load(self, data: Buffer) -> Any:
        text = super().load(data)
        try:
            return orjson.loads(text)
        except orjson.JSONDecodeError:
            return orjson.Fragment(text)


class FiniteLoader(TextLoader):
    """A number; those that JSON lacks are the texts NaN, Infinity and -Infinity, as in tags."""

    def load(self, data: Buffer) -> Any:
        text = super().load(data)
        return text if text[-1].isalpha() else float(text)
