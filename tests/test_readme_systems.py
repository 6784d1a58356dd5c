"""What README's section on the write side says to try, and the examples of docs/write-side.md: all of it is run."""

import ast
import asyncio
import contextlib
import io
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from spanfold.bootstrap import http_operations, installation
from spanfold.language.settings import Settings, settings
from tests.support.api import api_process
from tests.support.commands import environment
from tests.support.workers import Start

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "write-side.md").read_text()
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
SYSTEMS = {"Event sourcing", "CQRS", "Read models", "Domain model"}


def section(text: str, heading: str) -> str:
    """What stands under a heading, up to the next one of its level or above."""
    level = heading.partition(" ")[0]
    found = re.search(rf"^{re.escape(heading)}\n(.*?)(?=^#{{1,{len(level)}}} |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, heading
    return found[1]


def headings(page: str) -> list[str]:
    return re.findall(r"^## .*$", page, re.MULTILINE)


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def rows() -> list[list[str]]:
    """The table's rows: system, where it is, how to try it."""
    table = section((ROOT / "README.md").read_text(), "### Write side")
    found = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line.startswith("|")
    ]
    return found[2:]


def anchor(heading: str) -> str:
    return heading.removeprefix("## ").lower().replace(" ", "-")


def run_examples(last: str) -> None:
    """The page's examples one after the other, up to those under this heading; each prints what its comments say."""
    names: dict[str, Any] = {}
    with asyncio.Runner() as runner:
        for heading in headings(PAGE):
            for code in blocks(section(PAGE, heading), "python"):
                printed = run_example(runner, code, names)
                lines = iter(printed)
                assert all(comment in lines for comment in said(code)), (heading, printed)
            if heading == last:
                return


def run_example(runner: asyncio.Runner, code: str, names: dict[str, Any]) -> list[str]:
    """What it printed."""
    compiled = compile(code, "docs/write-side.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    with contextlib.redirect_stdout(io.StringIO()) as out:
        result = eval(compiled, names)  # noqa: S307  # the page is ours
        if asyncio.iscoroutine(result):
            runner.run(result)
    return out.getvalue().splitlines()


def said(code: str) -> list[str]:
    """The comments that say what a print prints."""
    return re.findall(r"^ *print\(.*\)  # (.*)$", code, re.MULTILINE)


def test_the_table_has_every_system_and_what_it_names_is_there() -> None:
    assert {system for system, _, _ in rows()} == SYSTEMS
    for _, where, _ in rows():
        for path in re.findall(r"`([\w/.]+)`", where):
            assert (ROOT / path).exists(), path


def test_every_link_leads_to_an_example() -> None:
    anchors = {anchor(heading): heading for heading in headings(PAGE)}
    links = [link for *_, how in rows() for link in re.findall(r"\(docs/write-side\.md#([\w-]+)\)", how)]
    assert links
    for link in links:
        assert blocks(section(PAGE, anchors[link]), "python"), link


def test_the_examples_without_a_server_say_what_they_say() -> None:
    run_examples("## Commands")


@pytest.fixture
def system(
    stack_settings: Settings,
    ledger: psycopg.Connection[Any],
    start: Start,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[str]:
    """The URL of an API on a running stack, which this process's own settings name too."""
    for name, value in environment(stack_settings).items():
        monkeypatch.setenv(name, value)
    settings.cache_clear()
    start()
    with api_process(stack_settings, tmp_path) as url:
        yield url
    settings.cache_clear()


def test_the_examples_and_commands_on_a_running_stack(system: str) -> None:
    run_examples("## Queries")
    for line in "".join(blocks(section(PAGE, "## Over HTTP"), "sh")).splitlines():
        answer = json.loads(typed(line, system))
        assert "title" not in answer, (line, answer)
    commands = [command for *_, how in rows() for command in re.findall(r"`([^`]+)`", how)]
    assert len(commands) >= 3
    for line in commands:
        out = typed(line, system)
        assert out
        assert '"title"' not in out, (line, out)


def test_the_examples_of_operations(system: str) -> None:
    names: dict[str, Any] = {}
    with asyncio.Runner() as runner:
        for code in blocks(section(OPERATIONS, "## From Python"), "python"):
            lines = iter(run_example(runner, code, names))
            assert all(comment in lines for comment in said(code)), code
    for line in "".join(blocks(section(OPERATIONS, "## Over HTTP"), "sh")).splitlines():
        answer = typed(line.replace("curl ", "curl -s "), system)
        assert '"title"' not in answer, (line, answer)


def test_the_page_of_operations_names_every_route() -> None:
    table = section(OPERATIONS, "## Over HTTP")
    named = {
        name
        for row in re.findall(r"^\| (?:GET|POST).*$", table, re.MULTILINE)
        for name in re.findall(r"`/operations/([^`]+)`", row)
    }
    assert named == http_operations(installation(Settings())).keys()


def typed(line: str, url: str) -> str:
    """What the command says, typed into a shell."""
    spanfold = shlex.join([sys.executable, "-m", "spanfold"])
    line = line.replace("localhost:4380", url).replace(".venv/bin/spanfold", spanfold)
    done = subprocess.run(["bash", "-c", line], env=os.environ, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, (line, done.stdout, done.stderr)
    return done.stdout
