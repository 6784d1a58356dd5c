"""What a running stack publishes: HOME/stack.json, and the lock that gives a home to one stack.

HOME/lock is held (flock) by the supervisor and by its guard, and names the supervisor. It is free only when nothing of
a stack runs any more, unless both were killed at once; stack.json is written atomically, once the servers answer.
"""

import fcntl
import json
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from spanfold.embedded.errors import ChildFailed, HomeInUse
from spanfold.embedded.guard import Stoppable, stop_in_order
from spanfold.embedded.process_identity import Identity
from spanfold.kafka.plaintext import NO_SECURITY_IN_ENVIRONMENT

STATE_FILE: Final = "stack.json"
LOCK_FILE: Final = "lock"
HANDOVER_TIMEOUT_S: Final = 90.0
LEFTOVER_TIMEOUT_S: Final = 20.0
LOCK_POLL_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class StackState:
    """A running stack. `ports` and `processes` are keyed by program; a server that was named has neither."""

    home: Path
    kafka_bootstrap: str
    postgres_dsn: str
    supervisor: Identity
    started_at: str
    """ISO 8601, UTC."""
    ports: Mapping[str, int] = field(default_factory=dict)
    processes: Mapping[str, Identity] = field(default_factory=dict)
    psql: Path | None = None
    """The psql that came with the embedded server."""

    @property
    def pids(self) -> dict[str, int]:
        """The pid of each program."""
        return {name: identity.pid for name, identity in self.processes.items()}

    @property
    def has_own_kafka(self) -> bool:
        """Whether Kafka is the stack's own, not one that was named."""
        return "kafka" in self.ports

    @property
    def has_own_postgres(self) -> bool:
        """The same of Postgres."""
        return "postgres" in self.ports

    @property
    def logs(self) -> Path:
        """The folder of `<program>.log` files."""
        return self.home / "logs"

    @property
    def environment(self) -> dict[str, str]:
        """The settings by which a spanfold process finds this stack; its own broker has no TLS and no login."""
        return {
            **(NO_SECURITY_IN_ENVIRONMENT if self.has_own_kafka else {}),
            "SPANFOLD_HOME": str(self.home),
            "SPANFOLD_KAFKA_BOOTSTRAP": self.kafka_bootstrap,
            "SPANFOLD_POSTGRES_DSN": self.postgres_dsn,
        }


def write_state(state: StackState) -> None:
    """Replace HOME/stack.json."""
    document = asdict(state)
    document["supervisor"] = state.supervisor._asdict()
    document["processes"] = {name: process._asdict() for name, process in state.processes.items()}
    document["logs"] = state.logs
    draft = state.home / f"{STATE_FILE}.new"
    draft.write_text(json.dumps(document, indent=2, default=str) + "\n")
    draft.replace(state.home / STATE_FILE)


def read_state(home: Path) -> StackState | None:
    """The stack that runs on `home` and is ready, or None; what a killed one left behind counts as None."""
    state = _last_state(home)
    return state if state and state.supervisor.process() else None


def last_supervisor(home: Path) -> Identity | None:
    """The supervisor of a stack that did not stop in order: it was killed, or the machine went down. None after `down`."""
    state = _last_state(home)
    return state.supervisor if state else None


def stop_running(home: Path, timeout_s: float = 90.0) -> bool:
    """Ask the stack on `home`, ready or not, to stop, and wait until all of it has ended.

    Returns False when none was running. Raises ChildFailed when it takes longer than `timeout_s`.
    """
    owner = _owner(home)
    supervisor = owner.process() if owner else None
    if supervisor is None or _is_free(home):
        return False
    supervisor.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + timeout_s
    while not _is_free(home):
        if time.monotonic() > deadline:
            raise ChildFailed(f"The stack on {home} (pid {supervisor.pid}) did not stop within {timeout_s:g} s.")
        time.sleep(LOCK_POLL_S)
    return True


def stop_leftovers(home: Path) -> list[str]:
    """Stop the children of a stack that was killed together with its guard; returns their names.

    Call it with the home locked. SIGINT is the signal that every one of them takes as an orderly end.
    """
    state = _last_state(home)
    if state is None:
        return []
    processes = {name: identity.process() for name, identity in state.processes.items()}
    left = [
        Stoppable(name, process, signal.SIGINT, LEFTOVER_TIMEOUT_S) for name, process in processes.items() if process
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
        owner = _owner(home)
        if owner and (owner.process() or time.monotonic() > deadline):
            raise HomeInUse(
                f"A stack already runs on {home} (pid {owner.pid}). Use it as it is, stop it with `spanfold down`,"
                " or name another home in SPANFOLD_HOME."
            )
        time.sleep(LOCK_POLL_S)
    os.ftruncate(handle, 0)
    os.write(handle, json.dumps(Identity.of_this_process()).encode())
    return handle


def _owner(home: Path) -> Identity | None:
    """The process that last locked the home; None when none did, or has not written its pid yet."""
    try:
        return Identity(*json.loads((home / LOCK_FILE).read_text()))
    except (FileNotFoundError, json.JSONDecodeError):
        return None


def _try_lock(home: Path) -> int | None:
    handle = os.open(home / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    return handle


def _is_free(home: Path) -> bool:
    try:
        handle = _try_lock(home)
    except FileNotFoundError:  # an ephemeral home goes with its stack
        return True
    if handle is not None:
        os.close(handle)
    return handle is not None


def _last_state(home: Path) -> StackState | None:
    try:
        document = json.loads((home / STATE_FILE).read_text())
    except FileNotFoundError:
        return None
    del document["logs"]
    document["home"] = Path(document["home"])
    document["psql"] = Path(document["psql"]) if document["psql"] else None
    document["supervisor"] = Identity(**document["supervisor"])
    document["processes"] = {name: Identity(**process) for name, process in document["processes"].items()}
    return StackState(**document)
