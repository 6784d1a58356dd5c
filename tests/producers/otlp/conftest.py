"""Commands as processes, and OTLP's front door before topics of a test's own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from spanfold.language.settings import Settings
from spanfold.language.topics import TopicOnBroker
from tests.producers.otlp.door import Door, Run, url_of
from tests.support.processes import SPANFOLD, Forkserver
from tests.support.workers import Worker


@pytest.fixture
def run(forkserver: Forkserver, tmp_path: Path) -> Iterator[Run]:
    """Run `spanfold <words>` with these settings, in a home of this test; what still runs at the end is killed."""
    running: list[Worker] = []

    def run(settings: Settings, *words: str) -> Worker:
        own = settings.model_copy(update={"home": tmp_path / "home", "session_timeout_s": 6.0})
        folder = tmp_path / f"command {len(running)}"
        folder.mkdir()
        running.append(Worker(own, folder, (*SPANFOLD, *words)))
        return running[-1]

    yield run
    for process in running:
        process.kill()


@pytest.fixture
def door(run: Run, stack_settings: Settings, topics: dict[str, TopicOnBroker]) -> Door:
    """`spanfold otlp` on a free port, in front of this test's topics."""
    command = run(stack_settings, "otlp", "--port", "0")
    return Door(command, url_of(command))
