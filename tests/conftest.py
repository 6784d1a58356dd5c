"""Registers the fixtures that the tests share, once."""

import signal
from collections.abc import Generator

import pytest

pytest_plugins = [
    "tests.support.jvm",
    "tests.support.servers",
    "tests.support.databases",
    "tests.support.topics",
    "tests.support.processes",
    "tests.support.commands",
    "tests.support.workers",
    "tests.support.api",
    "tests.support.victims",
    "tests.support.markers",
]

# a job that a script runs in the background ignores SIGINT, and so would all that it starts; some tests send it
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Captured output as UTF-8 can carry it: xdist ends the whole run where a test has logged a lone surrogate."""
    report = yield
    report.sections = [(title, text.encode("utf-8", "backslashreplace").decode()) for title, text in report.sections]
    return report
