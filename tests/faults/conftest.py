"""Which faults are tried always."""

import os
from pathlib import Path

import pytest

ALWAYS = ("test_appends.py", "test_committer.py", "test_schedules.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes minutes runs where it is asked for: `make faults` sets SPANFOLD_TEST_FAULTS."""
    if os.environ.get("SPANFOLD_TEST_FAULTS"):
        return
    for item in items:
        if item.path.parent == Path(__file__).parent and item.path.name not in ALWAYS:
            item.add_marker(pytest.mark.skip(reason="set SPANFOLD_TEST_FAULTS=1, or run `make faults`"))
