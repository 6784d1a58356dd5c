"""Start programs in order, keep them alive, stop them in the reverse order.

One thread per child waits for its end, and starts it again for as long as the stack runs: after a pause that doubles from
0.2 s to 30 s, and begins anew once a process has run for a minute. No child is ever given up, and none is stopped
because another one ended. Why each one last ended is kept in the home (process_ends.py).
"""

import logging
import subprocess
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import psutil

from spanfold.embedded.errors import ChildFailed
from spanfold.embedded.guard import Stoppable, stop_in_order
from spanfold.embedded.log_files import log_tail
from spanfold.embedded.process_ends import (
    CONFIGURATION_ERRORS,
    CRASH_LOOP_ENDS,
    ProcessEnd,
    ProcessHistory,
    end_of,
    never_started,
)
from spanfold.embedded.process_identity import Identity
from spanfold.embedded.programs import Guard, Program, spawn
from spanfold.language.errors import InvalidInput

log = logging.getLogger("spanfold.supervisor")

STABLE_S: Final = 60.0
FIRST_PAUSE_S: Final = 0.2
LONGEST_PAUSE_S: Final = 30.0
READY_POLL_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class NotReady:
    """A program that was launched and is not ready yet; it is started again all the same. `exit_code` is that of its last end."""

    name: str
    problem: str
    exit_code: int | None

    @property
    def is_configuration_error(self) -> bool:
        """Whether it refuses its settings, topics or tables."""
        return self.exit_code in CONFIGURATION_ERRORS


class Supervisor:
    """The children. `on_change` (another process) is called from threads."""

    def __init__(self, logs: Path, guard: Guard, history: ProcessHistory, on_change: Callable[[], None]) -> None:
        self._logs = logs
        self._guard = guard
        self._history = history
        self._on_change = on_change
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._children: dict[str, _Child] = {}

    @property
    def processes(self) -> dict[str, Identity]:
        """Each child's current or last process, in the order in which they were started."""
        return {name: child.identity for name, child in list(self._children.items()) if child.identity}

    def start(self, *programs: Program) -> None:
        """Start programs at once, and return when all of them are ready; from then on they are kept alive.

        Raises ChildFailed when one ends first or takes too long; all of them are stopped then, and forgotten.
        """
        started: list[_Child] = []
        try:
            for program in programs:
                started.append(self._add(program))
                try:
                    self._spawn(started[-1])
                except OSError as error:
                    raise ChildFailed(f"{program.name} could not be started: {error}") from error
            for child in started:
                self._await_ready(child)
        except BaseException:
            stop_in_order(stoppable for child in reversed(started) if (stoppable := child.stoppable()))
            for child in started:
                del self._children[child.program.name]
            raise
        for child in started:
            self._keep(child)

    def launch(self, *programs: Program) -> list[NotReady]:
        """Start programs at once and keep them alive whatever becomes of them.

        Returns when each is ready or has shown that it won't be soon: it refuses its configuration, has ended three times,
        or took too long. Those are returned.
        """
        children = [self._add(program) for program in programs]
        for child in children:
            try:
                self._spawn(child)
            except OSError as error:
                self._note_failed_start(child, error)
            self._keep(child)
        return [problem for child in children if (problem := self._await_settled(child))]

    def restart(self, names: Collection[str]) -> None:
        """Stop these children in order and start them again at once; returns when they have ended. Others are left alone."""
        self._history.forgive(names)
        with self._lock:
            stoppables = [self._children[name].request_restart() for name in names]
        stop_in_order(stoppable for stoppable in stoppables if stoppable)

    def watched_by(self, guard: Guard) -> None:
        """Have another guard from now on; it is told of all children."""
        with self._lock:
            self._guard = guard
            for child in self._children.values():
                if child.process:
                    guard.watch(child.program, child.process.pid)

    def stop(self) -> list[str]:
        """Stop all, last started first; returns the names of those that had to be killed."""
        with self._lock:
            self._stopping.set()
        children = list(self._children.values())
        killed = stop_in_order(stoppable for child in reversed(children) if (stoppable := child.stoppable()))
        for child in children:
            child.wake.set()
            if child.process:
                child.process.wait()
            if child.watcher:
                child.watcher.join()
        return killed

    def _add(self, program: Program) -> "_Child":
        """Its ends before this stack began are no crash loop of this one."""
        if program.name in self._children:
            raise InvalidInput(f"a program named {program.name!r} is already running; names are unique")
        child = self._children[program.name] = _Child(program)
        self._history.forgive([program.name])
        return child

    def _spawn(self, child: "_Child") -> None:
        """Start the child's next process, unless the stack stops. Raises OSError."""
        with self._lock:
            if self._stopping.is_set():
                return
            path = self._logs / f"{child.program.name}.log"
            begin = path.stat().st_size if path.exists() else 0
            child.replace(spawn(child.program, self._logs, self._guard), begin)
        self._history.started(child.program.name)

    def _keep(self, child: "_Child") -> None:
        name = f"watch-{child.program.name}"
        child.watcher = threading.Thread(target=self._watch, args=(child,), name=name, daemon=True)
        child.watcher.start()

    def _watch(self, child: "_Child") -> None:
        """Start it again whenever it ends, until the stack stops."""
        while not self._stopping.is_set():
            if child.runs and child.process:
                self._await_end(child, child.process)
            elif not child.wake.wait(child.pause_s):
                self._try_again(child)
            elif not self._stopping.is_set():
                child.begin_anew()
                self._try_again(child)

    def _await_end(self, child: "_Child", process: subprocess.Popen[bytes]) -> None:
        code = process.wait()
        if not self._stopping.is_set() and not child.wake.is_set():
            path = self._logs / f"{child.program.name}.log"
            self._note(child, end_of(path, process.pid, child.started_at, code, child.log_begin))
        child.ended(code)

    def _try_again(self, child: "_Child") -> None:
        try:
            self._spawn(child)
        except OSError as error:
            self._note_failed_start(child, error)
        else:
            self._on_change()

    def _note_failed_start(self, child: "_Child", error: OSError) -> None:
        self._note(child, never_started(error))
        child.ended(None)

    def _note(self, child: "_Child", end: ProcessEnd) -> None:
        self._history.ended(child.program.name, end)
        log.warning("%s ended (%s)%s", child.program.name, end.manner, f": {end.error}" if end.error else "")

    def _await_ready(self, child: "_Child") -> None:
        program = child.program
        deadline = time.monotonic() + program.ready_timeout_s
        while child.is_running():
            if program.ready is None or program.ready():
                return
            if time.monotonic() > deadline:
                raise self._failed(program, f"was not ready within {program.ready_timeout_s:g} s")
            time.sleep(READY_POLL_S)
        raise self._failed(program, f"ended with {child.process and child.process.returncode} before it was ready")

    def _await_settled(self, child: "_Child") -> NotReady | None:
        program = child.program
        deadline = time.monotonic() + program.ready_timeout_s
        while True:
            code, end = child.last_code, self._history.last_end(program.name)
            if child.ends and end and (child.ends >= CRASH_LOOP_ENDS or code in CONFIGURATION_ERRORS):
                reason = f": {end.error}" if end.error else ""
                problem = f"{program.name} ended before it was ready ({end.manner}){reason}"
                program.given_up()
                return NotReady(program.name, problem, code)
            if child.runs and (program.ready is None or program.ready()):
                return None
            if time.monotonic() > deadline:
                problem = f"{program.name} was not ready within {program.ready_timeout_s:g} s"
                program.given_up()
                return NotReady(program.name, problem, code)
            time.sleep(READY_POLL_S)

    def _failed(self, program: Program, problem: str) -> ChildFailed:
        path = self._logs / f"{program.name}.log"
        return ChildFailed(f"{program.name} {problem}. Its log, {path}, ends:\n{log_tail(path)}")


class _Child:
    """One program's current process, and its ends since it was launched. `wake` ends its pause, or asks for a restart."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.ends = 0
        self.last_code: int | None = None
        self.watcher: threading.Thread | None = None
        self.wake = threading.Event()
        self.process: subprocess.Popen[bytes] | None = None
        self.identity: Identity | None = None
        self.runs = False
        self._handle: psutil.Process | None = None
        self._in_a_row = 0

    def replace(self, process: subprocess.Popen[bytes], log_begin: int) -> None:
        """Have this process now. Its output begins at that byte of the log."""
        self.process, self.log_begin = process, log_begin
        # Taken before anybody can reap it: a pid that is not reaped is not reused.
        self._handle = psutil.Process(process.pid)
        self.identity = Identity(process.pid, self._handle.create_time())
        self.started_at = datetime.now(UTC)
        self._began = time.monotonic()
        self.runs = True
        self.wake.clear()  # whoever asked for a restart meanwhile has a new process

    def ended(self, code: int | None) -> None:
        """Its process has ended so, or with None could not be started."""
        if self.runs and time.monotonic() - self._began > STABLE_S:
            self._in_a_row = 0
        self.runs = False
        self.last_code = code
        self.ends += 1
        self._in_a_row += 1

    def is_running(self) -> bool:
        """Whether its process runs now. Not for one that has a watcher."""
        return self.process is not None and self.process.poll() is None

    def begin_anew(self) -> None:
        """It is started on request: no pause, and the next pause is a short one."""
        self._in_a_row = 0
        self.wake.clear()

    @property
    def pause_s(self) -> float:
        """How long to wait before it is started again."""
        return min(FIRST_PAUSE_S * 2.0 ** min(self._in_a_row - 1, 20), LONGEST_PAUSE_S)

    def request_restart(self) -> Stoppable | None:
        """Have it started again as soon as it has ended; returns what is to be stopped."""
        stoppable = self.stoppable()
        self.wake.set()
        return stoppable

    def stoppable(self) -> Stoppable | None:
        """Its current process and how to end it."""
        if self._handle is None:
            return None
        return Stoppable(self.program.name, self._handle, self.program.stop_signal, self.program.stop_timeout_s)
