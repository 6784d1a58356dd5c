"""What the tests of the embedded stack share: waiting for a condition, and a stack supervised by another process."""

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from spanfold.embedded import EmbeddedStack, StackState, read_state

SUPERVISE = """
import sys
from pathlib import Path
from spanfold.embedded import EmbeddedStack
with EmbeddedStack(Path(sys.argv[1])) as stack:
    stack.wait()
"""

Until = Callable[[Callable[[], object]], None]
Supervise = Callable[[Path], tuple[subprocess.Popen[bytes], StackState]]


@pytest.fixture
def until() -> Until:
    """Wait until a condition holds; fails after 60 s."""

    def wait(condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < deadline, "the condition did not come true"
            time.sleep(0.05)

    return wait


def remove_home(home: Path) -> None:
    """Remove what a stopped stack kept, also what root keeps elsewhere."""
    for folder in (home / "postgres", home):
        shutil.rmtree(folder.resolve(), ignore_errors=True)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A home for one stack after another."""
    yield tmp_path / "home"
    remove_home(tmp_path / "home")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedStack]:
    """A running stack, shared by a module's tests."""
    home = tmp_path_factory.mktemp("stack") / "höme of its own"
    with EmbeddedStack(home) as stack:
        yield stack
    remove_home(home)


@pytest.fixture
def supervise(until: Until) -> Iterator[Supervise]:
    """Run a stack in a process of its own, which is stopped at the end if it still runs."""
    running: list[subprocess.Popen[bytes]] = []

    def start(home: Path) -> tuple[subprocess.Popen[bytes], StackState]:
        process = subprocess.Popen([sys.executable, "-c", SUPERVISE, home])
        running.append(process)
        until(lambda: read_state(home) or process.poll() is not None)
        state = read_state(home)
        assert state, "the stack did not start"
        return process, state

    yield start
    for process in running:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
