"""The error tree in language/errors.py is whole: each class in its place, with the exit code and the HTTP status that it has."""

import importlib
import pkgutil
import re
from collections.abc import Iterator

import spanfold
from spanfold.language import errors
from spanfold.language.errors import SpanfoldError

LINE = re.compile(r"^ {2}( *)(\w+) +(\d) +(\d{3})   \S", re.MULTILINE)

SCRIPTS = re.compile(r"\.(__main__|env|lock_jars)$|\.migrations\.versions\.")
"""Modules that do something when they are imported, or need the `embedded` extra."""

Row = tuple[str, int, int]


def subclasses(kind: type[SpanfoldError], depth: int = 0) -> Iterator[tuple[int, Row]]:
    yield depth, (kind.__name__, kind.exit_code, kind.http_status.value)
    for child in kind.__subclasses__():
        if child.__module__.startswith("spanfold."):
            yield from subclasses(child, depth + 1)


def paths(rows: Iterator[tuple[int, Row]]) -> dict[str, Row]:
    """The rows by their place in the tree: SpanfoldError/InvalidInput/NotFound."""
    placed: dict[str, Row] = {}
    above: list[str] = []
    for depth, row in rows:
        above[depth:] = [row[0]]
        placed["/".join(above)] = row
    return placed


def documented() -> Iterator[tuple[int, Row]]:
    for indentation, name, exit_code, status in LINE.findall(errors.__doc__ or ""):
        yield len(indentation) // 2, (name, int(exit_code), int(status))


def test_the_docstring_has_every_error_in_its_place() -> None:
    for module in pkgutil.walk_packages(spanfold.__path__, "spanfold."):
        if not SCRIPTS.search(module.name):
            importlib.import_module(module.name)
    assert paths(documented()) == paths(subclasses(SpanfoldError))
