"""The guard: a small process that outlives the supervisor just long enough to stop its children.

It is started as a script (it imports psutil and nothing else) with the read end of a pipe as its standard
input. The supervisor, and for a moment each child on its way to exec, hold the write end. Who starts a child says its name
in a line; the child announces itself with another, `name pid signal timeout_s`. End of file means that nobody is left to look
after the children, so the guard stops them, last named first, and removes the folders given as arguments.
"""

import shutil
import signal
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass

import psutil

KILL_TIMEOUT_S = 10.0
POLL_S = 0.02


@dataclass(frozen=True, slots=True)
class Stoppable:
    """A process and how to end it. `process` knows its start time, so a reused pid is never signalled."""

    name: str
    process: psutil.Process
    signal: int
    timeout_s: float


def parse(name: str, pid: str, number: str, timeout_s: str) -> Stoppable | None:
    """The child that is announced, or None when it is gone already."""
    try:
        return Stoppable(name, psutil.Process(int(pid)), int(number), float(timeout_s))
    except psutil.NoSuchProcess:
        return None


def is_alive(process: psutil.Process) -> bool:
    """Whether it still runs; a zombie doesn't, and neither does another process with its pid.

    A zombie whose other threads are still ending (a JVM's, for a moment) does: it holds its ports and locks.
    """
    try:
        if not process.is_running():
            return False
        return bool(process.status() != psutil.STATUS_ZOMBIE or process.num_threads() > 1)
    except psutil.NoSuchProcess:
        return False


def stop(child: Stoppable) -> bool:
    """Signal the child and wait; kill it after `timeout_s`. Returns whether it ended by itself."""
    try:
        if not is_alive(child.process):
            return True
        child.process.send_signal(child.signal)
        if _ended(child.process, child.timeout_s):
            return True
        child.process.kill()
        _ended(child.process, KILL_TIMEOUT_S)
    except psutil.NoSuchProcess:
        return True
    return False


def stop_in_order(children: Iterable[Stoppable]) -> list[str]:
    """Stop one after the other; returns the names of those that had to be killed."""
    return [child.name for child in children if not stop(child)]


def main() -> None:
    """Remember who is announced until end of file, then stop them and clean up."""
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    children: dict[str, Stoppable | None] = {}
    for line in sys.stdin:
        name, *announced = line.split()
        children.setdefault(name, None)
        if announced and (child := parse(name, *announced)):
            children[name] = child
    for name in stop_in_order(child for child in reversed(children.values()) if child):
        print(f"{name} did not stop in time and was killed", flush=True)
    for folder in sys.argv[1:]:
        shutil.rmtree(folder, ignore_errors=True)


def _ended(process: psutil.Process, timeout_s: float) -> bool:
    # Not psutil's wait: it goes on until a zombie is reaped, and the first process of a container may never do that.
    deadline = time.monotonic() + timeout_s
    while is_alive(process):
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True


if __name__ == "__main__":
    main()
