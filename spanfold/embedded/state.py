"""What a running stack tells others: HOME/stack.json, written atomically, and the lock that makes a home one stack's."""

import fcntl
import json
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

import psutil

from spanfold.embedded.errors import ChildFailed, HomeInUse
from spanfold.embedded.guard import Stoppable, is_alive, stop_in_order

STATE_FILE: Final = "stack.json"
LOCK_FILE: Final = "lock"
HANDOVER_TIMEOUT_S: Final = 90.0
LEFTOVER_TIMEOUT_S: Final = 20.0
LOCK_POLL_S: Final = 0.05
SAME_START_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class StackState:
    """A running stack. Pids and ports are keyed by program; a server that was named, not started, has neither."""

    home: Path
    kafka_bootstrap: str
    postgres_dsn: str
    supervisor_pid: int
    started_at: str
    """ISO 8601, UTC."""
    ports: Mapping[str, int] = field(default_factory=dict)
    pids: Mapping[str, int] = field(default_factory=dict)
    psql: Path | None = None
    """The psql that came with the embedded server."""
    created: Mapping[str, float] = field(default_factory=dict)
    """When the kernel started each pid (and `supervisor`), in seconds of the epoch: tells a reused pid apart."""

    @property
    def logs(self) -> Path:
        """The folder of `<program>.log` files."""
        return self.home / "logs"

    @property
    def environment(self) -> dict[str, str]:
        """The settings by which a spanfold process finds this stack."""
        return {
            "SPANFOLD_HOME": str(self.home),
            "SPANFOLD_KAFKA_BOOTSTRAP": self.kafka_bootstrap,
            "SPANFOLD_POSTGRES_DSN": self.postgres_dsn,
        }


def write_state(state: StackState) -> None:
    """Replace HOME/stack.json."""
    document = {**asdict(state), "logs": state.logs}
    draft = state.home / f"{STATE_FILE}.new"
    draft.write_text(json.dumps(document, indent=2, default=str) + "\n")
    draft.replace(state.home / STATE_FILE)


def read_state(home: Path) -> StackState | None:
    """The stack that runs on `home` and is ready, or None; what a killed one left behind counts as None."""
    state = _last_state(home)
    return state if state and supervisor_of(state) else None


def supervisor_of(state: StackState) -> psutil.Process | None:
    """The supervising process, or None when it is gone, even if its pid is another's now."""
    return _process(state.supervisor_pid, state.created["supervisor"])


def stop_running(home: Path, timeout_s: float = 90.0) -> bool:
    """Ask the stack on `home` to stop and wait until its home is free; False when none was running."""
    state = _last_state(home)
    supervisor = supervisor_of(state) if state else None
    if supervisor is None:
        return False
    supervisor.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + timeout_s
    while (handle := _try_lock(home)) is None:
        if time.monotonic() > deadline:
            raise ChildFailed(
                f"The stack on {home} (pid {supervisor.pid}) did not stop within {timeout_s:g} s."
            )
        time.sleep(LOCK_POLL_S)
    os.close(handle)
    return True


def stop_leftovers(home: Path) -> list[str]:
    """Stop the children of a stack that was killed together with its guard; returns their names.

    Call it with the home locked. SIGINT is the signal that every one of them takes as an orderly end.
    """
    state = _last_state(home)
    if state is None:
        return []
    found = {name: _process(pid, state.created[name]) for name, pid in state.pids.items()}
    left = [
        Stoppable(name, process, signal.SIGINT, LEFTOVER_TIMEOUT_S)
        for name, process in found.items()
        if process
    ]
    stop_in_order(reversed(left))
    (home / STATE_FILE).unlink()
    return [child.name for child in left]


def lock_home(home: Path) -> int:
    """Take `home` for this process; returns the descriptor that holds it, for as long as anybody has it open.

    Waits for the guard of a killed stack to finish. Raises HomeInUse when another stack runs there.
    """
    deadline = time.monotonic() + HANDOVER_TIMEOUT_S
    while (handle := _try_lock(home)) is None:
        owner = (home / LOCK_FILE).read_text().strip()
        if _is_running(owner) or time.monotonic() > deadline:
            raise HomeInUse(
                f"A stack already runs on {home} (pid {owner}). Use it as it is, stop it with `spanfold down`, or"
                " name another home in SPANFOLD_HOME."
            )
        time.sleep(LOCK_POLL_S)
    os.ftruncate(handle, 0)
    os.write(handle, str(os.getpid()).encode())
    return handle


def _last_state(home: Path) -> StackState | None:
    try:
        document = json.loads((home / STATE_FILE).read_text())
    except FileNotFoundError:
        return None
    document.pop("logs")
    document["home"] = Path(document["home"])
    document["psql"] = Path(document["psql"]) if document["psql"] else None
    return StackState(**document)


def _process(pid: int, created: float) -> psutil.Process | None:
    """The process with that pid if it is still the one that started at `created`."""
    try:
        process = psutil.Process(pid)
        same = abs(process.create_time() - created) < SAME_START_S
    except psutil.NoSuchProcess:
        return None
    return process if same and is_alive(process) else None


def _try_lock(home: Path) -> int | None:
    handle = os.open(home / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    return handle


def _is_running(pid: str) -> bool:
    """Whether the process is there and no zombie. An empty pid is a stack that is just starting."""
    try:
        return not pid or is_alive(psutil.Process(int(pid)))
    except psutil.NoSuchProcess:
        return False
