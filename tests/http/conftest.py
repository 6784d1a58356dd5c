"""`spanfold api` as a process, on a stack of the test's own."""

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from spanfold.language.settings import Settings
from tests.rebuilds.conftest import environment
from tests.stream_processors.conftest import Start, start, until

__all__ = ["start"]


@contextmanager
def api_process(settings: Settings, folder: Path, **more: str) -> Iterator[str]:
    """Runs it until the block ends; gives its URL."""
    log = folder / "api.log"
    argv = [sys.executable, "-m", "spanfold", "api", "--port", "0"]
    said = environment(settings) | {"SPANFOLD_HOME": str(folder / "home"), "COLUMNS": "200", **more}
    with log.open("wb") as standard_error:
        process = subprocess.Popen(argv, env=said, stderr=standard_error)
    try:

        def url() -> str | None:
            assert process.poll() is None, log.read_text()
            found = re.search(r"commands at (http://\S+)/commands", log.read_text())
            return found[1] if found else None

        yield until(url, "the API's URL", log.read_text)
        process.terminate()
        assert process.wait(60) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def api(stack_settings: Settings, ledger: psycopg.Connection[Any], start: Start, tmp_path: Path) -> Iterator[str]:
    """The URL of an API, with a worker that folds what it appends."""
    start()
    with api_process(stack_settings, tmp_path) as url:
        yield url
