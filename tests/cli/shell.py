"""`spanfold …` as a user of one home runs it, and the processes that it starts."""

import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import psutil

from spanfold.embedded.stack_state import StackState, read_state
from tests.support.processes import SPANFOLD, Finished, run


class Shell:
    """Runs `spanfold …` against one home, as a user would, with nothing of this process's settings."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def environment(self, **more: str) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("SPANFOLD_")}
        return {**kept, "SPANFOLD_HOME": str(self.home), "COLUMNS": "200", **more}

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "spanfold", *words]

    def __call__(self, *words: str, stdin: str = "", **environment: str) -> Finished:
        return run([*SPANFOLD, *words], self.environment(**environment), stdin=stdin)

    def json(self, *words: str, **environment: str) -> Any:
        done = self(*words, "--json", **environment)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    @property
    def state(self) -> StackState | None:
        return read_state(self.home)

    @property
    def up_state(self) -> StackState:
        state = self.state
        assert state, f"nothing runs on {self.home}"
        return state

    def up(self) -> None:
        done = self("up", "--detach")
        assert done.returncode == 0, done.stderr

    def family(self) -> dict[str, psutil.Process]:
        """Every process of the stack, by name."""
        state = self.up_state
        named = {identity.pid: name for name, identity in state.processes.items()}
        supervisor = psutil.Process(state.supervisor.pid)
        children = supervisor.children(recursive=True)
        return {"supervisor": supervisor, **{named.get(each.pid, f"pid {each.pid}"): each for each in children}}


def remove(shell: Shell) -> None:
    """Stop what a test left running, and remove what it kept, also what root keeps elsewhere."""
    shell("down")
    for folder in (shell.home / "postgres", shell.home):
        shutil.rmtree(folder.resolve(), ignore_errors=True)


def end_order(processes: dict[str, psutil.Process], timeout_s: float = 60.0) -> list[str]:
    """The names of the processes in the order in which they end; fails when one outlives the time."""
    left, ended = dict(processes), []
    deadline = time.monotonic() + timeout_s
    while left:
        assert time.monotonic() < deadline, f"still alive: {left}"
        for name in [name for name, process in left.items() if not alive(process)]:
            ended.append(name)
            del left[name]
        time.sleep(0.01)
    return ended


def alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
