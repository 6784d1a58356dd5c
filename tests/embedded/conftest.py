"""Homes for embedded stacks, and a stack that another process supervises."""

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from spanfold.embedded.stack import EmbeddedStack
from spanfold.embedded.stack_state import StackState, read_state
from tests.support.waiting import until

SUPERVISE = """
import sys
from pathlib import Path
from spanfold.embedded.stack import EmbeddedStack
with EmbeddedStack(Path(sys.argv[1])) as stack:
    stack.wait()
"""

Supervise = Callable[[Path], tuple[subprocess.Popen[bytes], StackState]]


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
def supervise() -> Iterator[Supervise]:
    """Run a stack in a process of its own, which is stopped at the end if it still runs."""
    running: list[subprocess.Popen[bytes]] = []

    def start(home: Path) -> tuple[subprocess.Popen[bytes], StackState]:
        process = subprocess.Popen([sys.executable, "-c", SUPERVISE, home])
        running.append(process)
        until(lambda: read_state(home) or process.poll() is not None, "the stack's state")
        state = read_state(home)
        assert state, "the stack did not start"
        return process, state

    yield start
    for process in running:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
