"""Requests to a running stack: lines in the named pipe HOME/control, which its supervisor reads.

A request is `restart NAME…`. Whoever may write to the home may ask. What became of it is in stack.json: other processes.
"""

import os
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from spanfold.language.errors import Misconfigured

CONTROL_FILE: Final = "control"
RESTART: Final = "restart"
END: Final = b"\n"


class Control:
    """Reads requests until it is closed; `restart` is called with names, from a thread of its own."""

    def __init__(self, home: Path, restart: Callable[[Sequence[str]], None]) -> None:
        self._path = home / CONTROL_FILE
        self._path.unlink(missing_ok=True)
        os.mkfifo(self._path, 0o600)
        self._restart = restart
        self._closing = False
        # opened for writing too: the pipe has no end while no request is written
        self._pipe = os.open(self._path, os.O_RDWR)
        self._reader = threading.Thread(target=self._read, name="control", daemon=True)
        self._reader.start()

    def close(self) -> None:
        """Stop reading. A request that is being carried out is finished first."""
        self._closing = True
        os.write(self._pipe, END)
        self._reader.join()
        os.close(self._pipe)
        with suppress(OSError):
            self._path.unlink()

    def _read(self) -> None:
        with os.fdopen(os.dup(self._pipe)) as requests:
            for line in requests:
                if self._closing:
                    return
                match line.split():
                    case [str(word), *names] if word == RESTART:
                        self._restart(names)


def request_restart(home: Path, names: Sequence[str]) -> None:
    """Ask the stack on this home to restart these programs. Misconfigured when nothing reads requests there."""
    try:
        pipe = os.open(home / CONTROL_FILE, os.O_WRONLY | os.O_NONBLOCK)
    except OSError as error:
        raise Misconfigured(f"the stack in {home} takes no requests: {error.strerror}") from error
    try:
        os.write(pipe, " ".join((RESTART, *names)).encode() + END)
    finally:
        os.close(pipe)
