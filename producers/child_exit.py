"""What was published in a child of multiprocessing is sent before the child ends.

A child of Process, Pool or ProcessPoolExecutor ends by os._exit, after the finalizers of multiprocessing.util; atexit runs only
where it was spawned. Process.terminate(), and Pool.terminate(), which `with Pool()` calls at its end, send SIGTERM: that one is
handled in such a child if it publishes, and only where the application left it at its default. Nothing can be done about
SIGKILL, nor about os._exit in a child of the application's own os.fork().
"""

import os
import signal
import threading
import time
from collections.abc import Callable
from multiprocessing import current_process, parent_process, util
from types import FrameType
from typing import Final

EXIT_FLUSH_S: Final = 5.0
"""How long a process that ends waits for Kafka, at most."""

Flush = Callable[[float], None]
"""Sends what is left, within these seconds, and logs how much could not be sent. It must not raise."""

_AFTER_THE_APPLICATIONS_OWN: Final = -100
_flushes: Final[list[Flush]] = []
_publishing_pid = 0
"""The process that has published."""

_every_child_publishes = False


def flush_at_child_exit(flush: Flush, *, first: bool = False) -> None:
    """Call it where a child ends, in the order of registration; `first` before all others."""
    _flushes.insert(0 if first else len(_flushes), flush)


def publishes() -> None:
    """This process is about to publish: from here on SIGTERM lets a child send what it has."""
    global _publishing_pid
    _publishing_pid = os.getpid()
    in_main_thread = threading.current_thread() is threading.main_thread()
    if _is_child() and in_main_thread and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _on_sigterm)


def every_child_publishes() -> None:
    """Children may have something to send before they publish the first event."""
    global _every_child_publishes
    _every_child_publishes = True
    publishes()


def _is_child() -> bool:
    # _inheriting: a spawned child that imports the application's main module, before it is one by its other marks
    return parent_process() is not None or getattr(current_process(), "_inheriting", False)


def _begin(_: object = None) -> None:
    """Called in every process, and again where a child begins with what its parent, or a fork server, has imported."""
    util.Finalize(None, _flush_in_child, exitpriority=_AFTER_THE_APPLICATIONS_OWN)
    if _every_child_publishes or _publishing_pid == os.getpid():
        publishes()


def _flush_in_child() -> None:
    if _is_child():
        _flush_all(EXIT_FLUSH_S)


def _flush_all(timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    for flush in _flushes:
        flush(max(deadline - time.monotonic(), 0.0))


def _on_sigterm(_number: int, _frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # in a thread: this one may have been interrupted while it held a lock of the publisher. Then the wait ends in vain
    flushing = threading.Thread(target=_flush_and_end, name="spanfold-sigterm", daemon=True)
    flushing.start()
    flushing.join(2 * EXIT_FLUSH_S)


def _flush_and_end() -> None:
    try:
        _flush_all(EXIT_FLUSH_S)
    finally:
        os.kill(os.getpid(), signal.SIGTERM)


util.register_after_fork(_begin, _begin)
_begin()
