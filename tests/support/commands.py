"""`spanfold …`, as a user would run it: as a process of its own, or in this one."""

import json
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pydantic import SecretStr
from typer.testing import CliRunner, Result

from spanfold.cli.app import app
from spanfold.language import settings as settings_module
from spanfold.language.settings import Settings
from tests.support.processes import COMMAND_S, SPANFOLD, Finished, run

Invoke = Callable[..., Result]


def environment(settings: Settings, **more: str) -> dict[str, str]:
    """The environment of a process with these settings: what of them is not a default, and `more`."""
    return os.environ | variables(settings) | more


def variables(settings: Settings) -> dict[str, str]:
    """The settings that are no defaults, as environment variables."""
    fields = settings.model_dump(exclude_unset=True)
    return {f"SPANFOLD_{name.upper()}": _text(value) for name, value in fields.items()}


def _text(value: Any) -> str:
    match value:
        case None:
            return ""
        case SecretStr():
            return value.get_secret_value()
        case dict():
            return json.dumps(value)
        case _:
            return str(value)


def command(settings: Settings, *words: str, stdin: str = "", timeout_s: float = COMMAND_S, **more: str) -> Finished:
    """`spanfold <words>` with these settings, and `more` in its environment, as a process of its own. Tests that call this
    take the fixture `forkserver`.
    """
    return run([*SPANFOLD, *words], environment(settings, **more), stdin=stdin, timeout_s=timeout_s)


def json_of(settings: Settings, *words: str, code: int = 0) -> Any:
    """What `spanfold <words>`, as a process, answers programs; fails when it exits with another code."""
    finished = command(settings, *words, "--json")
    assert finished.returncode == code, finished.stdout + finished.stderr
    return json.loads(finished.stdout)


@pytest.fixture
def invoke(stack_settings: Settings) -> Iterator[Invoke]:
    """Run `spanfold <words>` in this process, with the test's settings."""

    def invoke(*words: str, stdin: str | None = None, **more: str) -> Result:
        settings_module.settings.cache_clear()
        return CliRunner().invoke(app, words, input=stdin, env=variables(stack_settings) | more)

    yield invoke
    settings_module.settings.cache_clear()


def answer(invoke: Invoke, *words: str) -> Any:
    """What the command answers programs."""
    result = invoke(*words, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)
