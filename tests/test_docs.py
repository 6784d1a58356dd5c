"""What the documents name exists: files, links, modules, commands and their options, settings, make targets."""

import ast
import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import typer

from spanfold.language.settings import Settings
from spanfold.language.settings_reference import reference
from spanfold.language.topics import SNAPSHOTS_TOPIC, installed_topics

app = importlib.import_module("spanfold.cli.app")
USAGE_ERROR: Any = typer.BadParameter.__base__
ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob(".github/*.md")])
TOP = {path.name for path in ROOT.iterdir() if not path.name.startswith(".venv")}

FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
PATH = re.compile(r"[\w.-]+(/[\w.*-]+)+/?")
FILE = re.compile(r"[\w-]+\.(py|md|toml|json|yml|avsc)")
MODULE = re.compile(r"spanfold(\.\w+){2,}")
VARIABLE = re.compile(r"SPANFOLD_[A-Z_]*[A-Z]\b(?!…)")

TOPICS = {topic.short_name for topic in installed_topics()} | {SNAPSHOTS_TOPIC.rpartition(".")[2]}
ENTRY_POINT_GROUPS = {"topics", "schemas", "aggregates", "projections"}
ROOMS = {path.stem for path in (ROOT / "spanfold").iterdir()}
OTHER_NAMES = TOPICS | ENTRY_POINT_GROUPS | ROOMS

of_each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))


def test_the_documents_are_found() -> None:
    assert {"README.md", "DESIGN.md", "CONTRIBUTING.md"} <= {path.name for path in DOCUMENTS}


# Files and links


@of_each_document
def test_every_link_leads_to_a_file_and_a_heading(document: Path) -> None:
    for target in LINK.findall(prose(document)):
        if re.match(r"https?:|mailto:", target):
            continue
        name, _, anchor = target.partition("#")
        file = document.parent / name if name else document
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


@of_each_document
def test_every_path_exists(document: Path) -> None:
    """A path is seen from the root; a file's name alone is beside one that the same paragraph names by its path."""
    for paragraph in prose(document).split("\n\n"):
        paths = [text for text in INLINE.findall(paragraph) if PATH.fullmatch(text) and text.split("/")[0] in TOP]
        for path in paths:
            assert list(ROOT.glob(path.rstrip("/"))), path
        folders = {ROOT, *(found.parent if found.suffix else found for path in paths for found in ROOT.glob(path))}
        for text in INLINE.findall(paragraph):
            if FILE.fullmatch(text) and document.name != "CHANGELOG.md":
                assert any((folder / text).exists() for folder in folders), (text, paragraph)


@of_each_document
def test_no_path_is_named_whose_room_is_gone(document: Path) -> None:
    for text in INLINE.findall(prose(document)):
        if PATH.fullmatch(text) and text.endswith((".py", ".md", ".avsc")):
            assert list(ROOT.glob(text)), text


def anchors(document: Path) -> set[str]:
    """The fragments of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", prose(document), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def prose(document: Path) -> str:
    """Its text without the blocks of code."""
    return FENCED.sub("", document.read_text())


# Python


@of_each_document
def test_every_module_and_name_exists(document: Path) -> None:
    for text in INLINE.findall(prose(document)):
        if MODULE.fullmatch(text):
            assert resolved(text), text


@of_each_document
def test_every_import_of_an_example_works(document: Path) -> None:
    for language, code in FENCED.findall(document.read_text()):
        if language == "python":
            for node in ast.walk(ast.parse(code)):
                if isinstance(node, ast.ImportFrom) and str(node.module).startswith("spanfold"):
                    assert all(resolved(f"{node.module}.{alias.name}") for alias in node.names), ast.unparse(node)


def resolved(name: str) -> bool:
    """Whether this is a module, or a name in one."""
    module, _, attribute = name.rpartition(".")
    try:
        return hasattr(importlib.import_module(module), attribute) or bool(importlib.import_module(name))
    except ModuleNotFoundError:
        return False


# Commands


@of_each_document
def test_every_command_parses(document: Path) -> None:
    for line in command_lines(document):
        parse(line, complete=True)
    for text in INLINE.findall(prose(document)):
        if re.match(r"(\.venv/bin/)?spanfold [a-z]", text):
            parse(text.replace("…", ""), complete=False)


def test_what_is_no_command_and_no_option_is_noticed() -> None:
    for line in ("spanfold shrink", "spanfold sql --loud 'SELECT 1'", "spanfold worker folder"):
        with pytest.raises(USAGE_ERROR):
            parse(line, complete=False)
    with pytest.raises(USAGE_ERROR):
        parse("spanfold erase", complete=True)


def command_lines(document: Path) -> Iterator[str]:
    """The lines in its shell blocks that call spanfold."""
    for language, block in FENCED.findall(document.read_text()):
        if language == "sh":
            lines = block.replace("\\\n", "").splitlines()
            yield from (line for line in lines if re.match(r"(\.venv/bin/)?spanfold ", line))


def parse(line: str, *, complete: bool) -> None:
    """Raises USAGE_ERROR for an unknown command or option; for a missing argument only if the line is `complete`."""
    words = shlex.split(line, comments=True)[1:]
    command: Any = typer.main.get_command(app.app)
    while hasattr(command, "resolve_command") and words and not words[0].startswith("-"):
        context = command.context_class(command, info_name=command.name)
        name, command, words = command.resolve_command(context, words)
        command = app.load(name) if type(command) is app.LazyCommand else command
    if "--help" in words or hasattr(command, "resolve_command"):
        assert set(words) <= {"--help", "--version"}, line
        return
    try:
        command.make_context(command.name, words)
    except typer.BadParameter:
        if complete:
            raise


# Settings and make


@of_each_document
def test_every_variable_exists(document: Path) -> None:
    text = document.read_text()
    known = {f"SPANFOLD_{name.upper()}" for name in Settings.model_fields} | other_variables()
    assert set(VARIABLE.findall(text)) <= known


def other_variables() -> set[str]:
    """Those that the settings reference lists beside the settings."""
    return set(VARIABLE.findall(reference().partition("## Other variables")[2]))


def test_the_settings_reference_is_current() -> None:
    assert (ROOT / "docs" / "settings.md").read_text() == reference(), "run `make docs`"


def test_every_setting_has_a_meaning() -> None:
    assert all(field.description for field in Settings.model_fields.values())


@of_each_document
def test_every_make_target_exists(document: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    code = [
        *INLINE.findall(prose(document)),
        *(block for kind, block in FENCED.findall(document.read_text()) if kind == "sh"),
    ]
    assert {target for text in code for target in re.findall(r"^make ([a-z]+)", text, re.MULTILINE)} <= targets


# SQL


def test_every_view_and_function_exists(ledger: psycopg.Connection[Any]) -> None:
    for document in DOCUMENTS:
        for name in set(re.findall(r"\bspanfold\.([a-z_]+)\b(?![./])", document.read_text())) - OTHER_NAMES:
            query = """
                SELECT to_regclass('spanfold.' || %(name)s) IS NOT NULL
                    OR EXISTS (SELECT FROM pg_proc
                                WHERE proname = %(name)s AND pronamespace = 'spanfold'::regnamespace)
            """
            (exists,) = ledger.execute(query, {"name": name}).fetchone() or (False,)
            assert exists, (document.name, name)


def test_readme_lists_every_view(ledger: psycopg.Connection[Any]) -> None:
    query = "SELECT table_name FROM information_schema.views WHERE table_schema = 'spanfold'"
    table = (ROOT / "README.md").read_text().partition("### In SQL")[2].partition("\n### ")[0]
    listed = re.findall(
        r"`([a-z_]+)`", "".join(line.split("|")[1] for line in table.splitlines() if line.startswith("|"))
    )
    assert sorted(listed) == sorted(name for (name,) in ledger.execute(query))
