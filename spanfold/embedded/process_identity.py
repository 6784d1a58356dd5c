"""Processes that a reused pid can't be confused with: each pid is kept with the start time of its process."""

from typing import NamedTuple

import psutil

from spanfold.embedded.guard import is_alive

SAME_BIRTH_S = 1.0


class Identity(NamedTuple):
    """A process: its pid, and when the kernel started it, in seconds of the epoch."""

    pid: int
    created: float

    @classmethod
    def of_this_process(cls) -> "Identity":
        """This process."""
        process = psutil.Process()
        return cls(process.pid, process.create_time())

    def process(self) -> psutil.Process | None:
        """The process, or None when it is gone (or a zombie), even if its pid is another's now."""
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.created) < SAME_BIRTH_S
        except psutil.NoSuchProcess:
            return None
        return process if same and is_alive(process) else None
