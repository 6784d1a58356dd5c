"""What each test needs, told from its fixtures: markers to choose tests by, groups that one worker of pytest-xdist runs, and the
order in which tests are begun.
"""

from collections.abc import Set
from pathlib import Path
from typing import Final

import pytest

FAULTS: Final = Path(__file__).parents[1] / "faults"

STACKS: Final = frozenset({"shell", "running", "stack", "home", "victims", "secured"})
"""Fixtures that boot servers of their own."""

MARKED: Final = {
    "postgres": STACKS | {"postgres_dsn"},
    "kafka": STACKS | {"kafka_bootstrap"},
    "process": STACKS | {"forkserver", "wheel_file", "service", "installed", "terminal", "acme"},
}
"""The fixtures by which a test has the marker."""

SHARED: Final = ("running", "stack", "victims", "secured", "wheel_file", "installed", "shared_installation")
"""Fixtures that take long to make, and that several tests share: those run in one worker."""

LAST_FIRST: Final = ("unit", "postgres", "kafka", "process", "faults")
"""What takes longest is begun first, so that no worker is left alone with it in the end."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark them, and bring them into order."""
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        for name in markers_of(item.path, fixtures):
            item.add_marker(name)
        for fixture in SHARED:
            if fixture in fixtures:
                item.add_marker(pytest.mark.xdist_group(fixture))
                break
    items.sort(key=rank, reverse=True)


def markers_of(path: Path, fixtures: Set[str]) -> list[str]:
    """The markers of a test in this file that takes these fixtures, itself or through others."""
    names = [name for name, marking in MARKED.items() if marking & fixtures]
    if path.is_relative_to(FAULTS):
        names.append("faults")
    return names or ["unit"]


def rank(item: pytest.Item) -> int:
    """Of the marker that says most about how long it takes."""
    return max(LAST_FIRST.index(mark.name) for mark in item.iter_markers() if mark.name in LAST_FIRST)
