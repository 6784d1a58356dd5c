"""Start programs in order, keep them alive, stop them in the reverse order.

One thread per child waits for its end. A child that dies unexpectedly is started again after a pause that doubles
from 0.2 s. The fifth death in a row, each within a minute of its start, is reported and not repaired.
"""

import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import psutil

from spanfold.embedded.errors import ChildFailed
from spanfold.embedded.guard import Stoppable, stop_in_order
from spanfold.embedded.process_identity import Identity
from spanfold.embedded.programs import Guard, Program, log_tail, spawn
from spanfold.language.errors import InvalidInput

DEATHS_IN_A_ROW: Final = 5
STABLE_S: Final = 60.0
FIRST_PAUSE_S: Final = 0.2
READY_POLL_S: Final = 0.05


class Supervisor:
    """The living children. `on_failure` (given up) and `on_change` (started again) are called from threads."""

    def __init__(
        self,
        logs: Path,
        guard: Guard,
        on_failure: Callable[[ChildFailed], None],
        on_change: Callable[[], None],
    ) -> None:
        self._logs = logs
        self._guard = guard
        self._on_failure = on_failure
        self._on_change = on_change
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._children: dict[str, _Child] = {}

    @property
    def processes(self) -> dict[str, Identity]:
        """Each child's current process, in the order in which they were started."""
        return {name: child.identity for name, child in self._children.items()}

    def start(self, *programs: Program) -> None:
        """Start programs at once, and return when all of them are ready.

        Raises ChildFailed when one dies first or takes too long; all of them are stopped then, and forgotten.
        """
        started: list[_Child] = []
        try:
            for program in programs:
                started.append(self._spawn(program))  # noqa: PERF401  # those before one that fails are stopped
            for child in started:
                self._await_ready(child)
        except BaseException:
            stop_in_order(child.stoppable() for child in reversed(started))
            for child in started:
                del self._children[child.program.name]
            raise
        for child in started:
            name = f"watch-{child.program.name}"
            child.watcher = threading.Thread(target=self._watch, args=(child,), name=name, daemon=True)
            child.watcher.start()

    def _spawn(self, program: Program) -> "_Child":
        if program.name in self._children:
            raise InvalidInput(f"a program named {program.name!r} is already running; names are unique")
        child = _Child(program, spawn(program, self._logs, self._guard))
        self._children[program.name] = child
        return child

    def stop(self) -> list[str]:
        """Stop all, last started first; returns the names of those that had to be killed."""
        with self._lock:
            self._stopping.set()
        killed = stop_in_order(child.stoppable() for child in reversed(self._children.values()))
        for child in self._children.values():
            child.process.wait()
            if child.watcher:
                child.watcher.join()
        return killed

    def _await_ready(self, child: "_Child") -> None:
        program = child.program
        deadline = time.monotonic() + program.ready_timeout_s
        while child.is_running():
            if program.ready is None or program.ready():
                return
            if time.monotonic() > deadline:
                raise self._failed(program, f"was not ready within {program.ready_timeout_s:g} s")
            time.sleep(READY_POLL_S)
        raise self._failed(program, f"ended with {child.process.returncode} before it was ready")

    def _watch(self, child: "_Child") -> None:
        """Restart the child until the stack stops, or the child is given up."""
        while True:
            code = child.process.wait()
            if self._stopping.is_set():
                return
            child.count_death()
            problem = f"died {child.deaths} times in a row, the last time with {code}"
            if child.deaths >= DEATHS_IN_A_ROW:
                self._on_failure(self._failed(child.program, problem))
                return
            if self._stopping.wait(FIRST_PAUSE_S * 2 ** (child.deaths - 1)):
                return
            try:
                self._restart(child)
            except OSError as error:
                self._on_failure(self._failed(child.program, f"could not be started again ({error})"))
                return

    def _restart(self, child: "_Child") -> None:
        with self._lock:
            if self._stopping.is_set():
                return
            child.replace(spawn(child.program, self._logs, self._guard))
        self._on_change()

    def _failed(self, program: Program, problem: str) -> ChildFailed:
        log = self._logs / f"{program.name}.log"
        return ChildFailed(f"{program.name} {problem}. Its log, {log}, ends:\n{log_tail(log)}")


class _Child:
    """One program's current process and its record of deaths."""

    def __init__(self, program: Program, process: subprocess.Popen[bytes]) -> None:
        self.program = program
        self.deaths = 0
        self.watcher: threading.Thread | None = None
        self.replace(process)

    def replace(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        # Taken before anybody can reap it: a pid that is not reaped is not reused.
        self.handle = psutil.Process(process.pid)
        self.identity = Identity(process.pid, self.handle.create_time())
        self.started = time.monotonic()

    def count_death(self) -> None:
        if time.monotonic() - self.started > STABLE_S:
            self.deaths = 0
        self.deaths += 1

    def is_running(self) -> bool:
        return self.process.poll() is None

    def stoppable(self) -> Stoppable:
        return Stoppable(self.program.name, self.handle, self.program.stop_signal, self.program.stop_timeout_s)
