"""What `spanfold --help` promises."""

import inspect
import re
import subprocess
import sys
from importlib import import_module

import pytest
import typer
from typer.testing import CliRunner

from spanfold import __version__
from spanfold.cli.app import COMMANDS, app
from spanfold.language.parking import ParkedReason

WORDS = [[name] for name in COMMANDS if name != "worker"] + [["worker", "projector"], ["worker", "snapshots"], []]


@pytest.mark.parametrize("words", WORDS, ids=" ".join)
def test_every_command_shows_an_example(words: list[str]) -> None:
    shown = CliRunner().invoke(app, [*words, "--help"])
    assert shown.exit_code == 0
    assert "Example: " in shown.output


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_of_commands_says_what_their_own_help_says(name: str) -> None:
    entry = COMMANDS[name]
    found = getattr(import_module(entry.module), entry.name)
    help_text = found.info.help if isinstance(found, typer.Typer) else inspect.getdoc(found)
    assert str(help_text).splitlines()[0] == entry.summary


def test_the_list_of_commands_imports_none_of_them() -> None:
    script = "import sys, spanfold.cli.app; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert "spanfold.cli.app" in loaded
    assert not {"faust", "sqlalchemy", "psycopg", "confluent_kafka", "spanfold.cli.up"} & set(loaded)


def test_the_version_is_the_package_s() -> None:
    assert CliRunner().invoke(app, ["--version"]).output == f"spanfold {__version__}\n"


def test_a_command_that_does_not_exist_is_wrong_usage() -> None:
    assert CliRunner().invoke(app, ["upp"]).exit_code == 2


@pytest.mark.parametrize("reason", ParkedReason)
def test_the_help_of_parked_explains_every_reason(reason: ParkedReason) -> None:
    shown = CliRunner().invoke(app, ["parked", "--help"], env={"COLUMNS": "120"})
    words = re.sub(r"[\s│]+", " ", shown.output)
    assert f"{reason}: {reason.meaning}" in words
