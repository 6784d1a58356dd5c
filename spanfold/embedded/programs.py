"""A child program, and how it is started so that it can't be lost."""

import os
import pwd
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypedDict

from spanfold.embedded import guard
from spanfold.embedded.log_files import open_log
from spanfold.embedded.process_ends import PROGRAM_VARIABLE

# The child announces itself before it becomes the program, so there is no moment at which it runs and the
# guard doesn't know it. Its standard input is the guard's pipe until exec.
ANNOUNCE_AND_EXEC: Final = 'echo "$1 $$ $2 $3" >&0; shift 3; exec "$@" </dev/null'

RECOVERY_S: Final = 600.0
"""Longer than a server takes to recover its data after the machine went down."""


@dataclass(frozen=True, slots=True)
class Program:
    """A program that the supervisor starts and keeps alive.

    `env` is added to this process's environment. `ready` returns whether it serves; without one it counts as ready once it
    runs. `given_up` is called when `ready` is not asked again although it never was. Output goes to `<name>.log`. It is
    stopped with `stop_signal`, and killed `stop_timeout_s` later. `user` runs it as that user, when this process is root.
    """

    name: str
    argv: Sequence[str | Path]
    env: Mapping[str, str] = field(default_factory=dict)
    ready: Callable[[], bool] | None = None
    ready_timeout_s: float = 60.0
    given_up: Callable[[], None] = lambda: None
    stop_signal: signal.Signals = signal.SIGTERM
    stop_timeout_s: float = 15.0
    user: pwd.struct_passwd | None = None
    cwd: Path | None = None


class AsUser(TypedDict, total=False):
    """Popen's arguments for running as another user."""

    user: int
    group: int
    extra_groups: list[int]


class Guard:
    """The guard process, and the pipe whose end shows it that the supervisor is gone.

    `held` are descriptors that it keeps open as long as it lives, `remove` folders that it removes at the end.
    `on_death` is called, from a thread, should it end before it was released.
    """

    def __init__(
        self, log: Path, on_death: Callable[[], None], held: Sequence[int] = (), remove: Sequence[Path] = ()
    ) -> None:
        read_end, self.write_end = os.pipe()
        with log.open("ab") as output, os.fdopen(read_end) as pipe:
            self.process = subprocess.Popen(
                [sys.executable, "-P", guard.__file__, *remove],
                stdin=pipe,
                stdout=output,
                stderr=output,
                pass_fds=held,
                start_new_session=True,
                cwd="/",
            )
        self._on_death = on_death
        self._released = False
        self._watcher = threading.Thread(target=self._watch, name="watch-guard", daemon=True)
        self._watcher.start()

    def watch(self, program: Program, pid: int) -> None:
        """Hand over a child that another guard watched."""
        self.write(f"{program.name} {pid} {int(program.stop_signal)} {program.stop_timeout_s}")

    def write(self, line: str) -> None:
        """A line on its pipe; lost when it is gone, which on_death reports."""
        with suppress(BrokenPipeError):
            os.write(self.write_end, f"{line}\n".encode())

    def forget(self) -> None:
        """Close the pipe of a guard that has died."""
        os.close(self.write_end)

    def release(self) -> None:
        """Let it go: returns when whatever was still running has been stopped and the folders are removed."""
        self._released = True
        os.close(self.write_end)
        self._watcher.join()

    def _watch(self) -> None:
        self.process.wait()
        if not self._released:
            self._on_death()


def spawn(program: Program, logs: Path, watched_by: Guard) -> subprocess.Popen[bytes]:
    """Start the program in a session of its own, announced to the guard."""
    announcement = [program.name, str(int(program.stop_signal)), str(program.stop_timeout_s)]
    watched_by.write(program.name)  # children that start at once announce themselves in any order
    with open_log(logs / f"{program.name}.log") as log:
        return subprocess.Popen(
            ["/bin/sh", "-c", ANNOUNCE_AND_EXEC, "sh", *announcement, *program.argv],
            stdin=watched_by.write_end,
            stdout=log,
            stderr=log,
            env={**os.environ, **program.env, PROGRAM_VARIABLE: program.name},
            cwd=program.cwd,
            start_new_session=True,
            **as_user(program.user),
        )


def as_user(user: pwd.struct_passwd | None) -> AsUser:
    """The arguments of Popen that drop to `user`; none when it is None."""
    return AsUser(user=user.pw_uid, group=user.pw_gid, extra_groups=[]) if user else AsUser()
