"""`spanfold api` as a process."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from spanfold.language.settings import Settings
from tests.support.commands import environment
from tests.support.databases import Ledger
from tests.support.processes import SPANFOLD, Program
from tests.support.waiting import until
from tests.support.workers import Start


@contextmanager
def api_process(settings: Settings, folder: Path, **more: str) -> Iterator[str]:
    """Runs it until the block ends; gives its URL."""
    log = folder / "api.log"
    env = environment(settings, SPANFOLD_HOME=str(folder / "home"), COLUMNS="200", **more)
    with log.open("wb") as output:
        process = Program([*SPANFOLD, "api", "--port", "0"], env=env, stdout=output, stderr=output)
    try:

        def url() -> str:
            assert process.poll() is None, log.read_text()
            return (re.findall(r"commands at (http://\S+)/commands", log.read_text()) or [""])[0]

        yield until(url, "the API's URL", log.read_text)
        process.terminate()
        assert process.wait() == 0, log.read_text()
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def api(stack_settings: Settings, ledger: Ledger, start: Start, tmp_path: Path) -> Iterator[str]:
    """The URL of an API, with a worker that folds what it appends."""
    start()
    with api_process(stack_settings, tmp_path) as url:
        yield url
