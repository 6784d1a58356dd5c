"""The Kafka and the Postgres that an operation works on."""

import getpass
import os
import shlex
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pydantic import ValidationError

from spanfold.embedded.stack_state import StackState, read_state
from spanfold.kafka.plaintext import NO_SECURITY
from spanfold.language.errors import Misconfigured
from spanfold.language.settings import Settings, default_home, settings
from spanfold.language.topics import TopicOnBroker
from spanfold.postgres.dsn import checked_dsn
from spanfold.postgres.errors import translated


@dataclass(frozen=True, slots=True)
class Installation:
    """Settings that name a Kafka and a Postgres, and the stack that runs on their home, if one does."""

    settings: Settings
    stack: StackState | None = None

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """These settings; servers that they do not name are those of the stack that runs on their home."""
        stack = read_state(settings.home)
        return cls(settings if stack is None else with_servers_of(stack, settings), stack)

    @property
    def dsn(self) -> str:
        """The DSN of Postgres. Misconfigured when none is named, or it is no postgresql:// URL."""
        if not self.settings.postgres_dsn:
            home = self.settings.home
            raise Misconfigured(
                f"no Postgres is configured and no stack is running in {home}: start one with"
                f" `{command_line(home, 'up', '--detach')}`, or set SPANFOLD_POSTGRES_DSN"
            )
        return checked_dsn(self.settings.postgres_dsn)

    def prepare(self, notify: Callable[[str], None]) -> Mapping[str, TopicOnBroker]:
        """Create or check the topics and bring the database up to date; returns the topics by name. `notify` gets a line about
        each projection that waits for a rebuild.

        Raises Misconfigured, LogUnavailable or StoreUnavailable.
        """
        # imported here: SQLAlchemy and Alembic take a second, and most operations don't need them
        from sqlalchemy.exc import OperationalError

        from spanfold.kafka.topics import ensure_topics
        from spanfold.projections.generations import lifecycle
        from spanfold.projections.projection import installed

        dsn = self.dsn
        topics = ensure_topics(self.settings)
        try:
            for notice in lifecycle.prepare(dsn, topics.values(), installed()):
                notify(notice)
        except OperationalError as error:
            raise translated(error.orig) from error
        return topics

    def to_be_rebuilt(self) -> Sequence[str]:
        """A line about each projection that waits for a rebuild, in a database that is prepared. Raises StoreUnavailable, or
        Misconfigured when the role only reads views.
        """
        from psycopg.errors import InsufficientPrivilege
        from sqlalchemy.exc import OperationalError, ProgrammingError

        from spanfold.projections.generations import lifecycle
        from spanfold.projections.projection import installed

        try:
            return lifecycle.to_be_rebuilt(self.dsn, installed())
        except OperationalError as error:
            raise translated(error.orig) from error
        except ProgrammingError as error:
            if not isinstance(error.orig, InsufficientPrivilege):
                raise
            raise Misconfigured(
                "whether a projection waits for a rebuild is not known: this role only reads spanfold's views"
            ) from error


def environment_settings(**given: Any) -> Settings:
    """The environment's settings, with those that are given (and not None) in their place. Misconfigured names each one that is
    invalid.
    """
    try:
        return settings().model_copy(update={name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        problems = "; ".join(f"SPANFOLD_{str(wrong['loc'][0]).upper()}: {wrong['msg']}" for wrong in error.errors())
        raise Misconfigured(f"invalid setting: {problems}") from error


def with_servers_of(stack: StackState, chosen: Settings) -> Settings:
    """The settings, with the URLs of this stack where they name no servers themselves."""
    servers: dict[str, Any] = {"postgres_dsn": chosen.postgres_dsn or stack.postgres_dsn}
    if not chosen.kafka_bootstrap:
        servers |= {"kafka_bootstrap": stack.kafka_bootstrap, **(NO_SECURITY if stack.has_own_kafka else {})}
    return chosen.model_copy(update=servers)


def command_line(home: Path, *words: str) -> str:
    """What to type for a command about this home: `spanfold status`, with `--home` where it is not the default."""
    elsewhere = () if home == default_home() else ("--home", str(home))
    return shlex.join(("spanfold", *words, *elsewhere))


def user_at_host() -> str:
    """Who runs this process: user@host. A user without a name is their number."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"
