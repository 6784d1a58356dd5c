"""The stack that a command is about."""

from collections.abc import Callable, Mapping
from pathlib import Path

from spanfold.cli.options import AsJson, Home, sigterm_interrupts
from spanfold.language.settings import Settings
from spanfold.language.topics import TopicOnBroker
from spanfold.operations.installation import Installation, environment_settings
from spanfold.postgres.errors import unreachable_postgres

__all__ = [
    "AsJson", "Home", "chosen_settings", "named_postgres", "prepare", "running_settings", "sigterm_interrupts",
    "unreachable_postgres",
]  # fmt: skip


def chosen_settings(home: Path | None = None) -> Settings:
    return environment_settings(home=home)


def running_settings(settings: Settings) -> Settings:
    return Installation.of(settings).settings


def named_postgres(settings: Settings) -> str:
    return Installation(settings).dsn


def prepare(settings: Settings, tell: Callable[[str], None]) -> Mapping[str, TopicOnBroker]:
    return Installation(settings).prepare(tell)
