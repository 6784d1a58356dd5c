"""Spans, points and log records that wait in OpenTelemetry's own queues are exported before a child of multiprocessing ends.

BatchSpanProcessor, BatchLogRecordProcessor and PeriodicExportingMetricReader begin anew in a forked child, and leave it to
atexit to export what is left. An exporter doesn't know who uses it; the thread that does leads there.
"""

import threading
from typing import Any, Final
from weakref import WeakSet

from spanfold.language.throttled_log import ThrottledLog
from spanfold.producers.child_exit import every_child_publishes, flush_at_child_exit

_EXPORTERS: Final[WeakSet[Any]] = WeakSet()
_LOG: Final = ThrottledLog("spanfold.opentelemetry")


def export_at_child_exit(exporter: Any) -> None:
    """What waits for this exporter where a child ends is exported."""
    _EXPORTERS.add(exporter)
    every_child_publishes()


def _export_all(timeout_s: float) -> None:
    exporting = threading.Thread(target=_force_flush, name="spanfold-export", daemon=True)
    exporting.start()
    exporting.join(timeout_s / 2)  # the rest is for what was published
    if exporting.is_alive():
        _LOG.warning("a child process ends before its batches were exported", within_s=timeout_s / 2)


def _force_flush() -> None:
    exporters = set(_EXPORTERS)
    for thread in threading.enumerate():
        waiting: Any = getattr(getattr(thread, "_target", None), "__self__", None)
        if getattr(waiting, "_exporter", None) in exporters:
            try:
                waiting.force_flush()
            except Exception as error:
                _LOG.warning("a batch was not exported", reason=repr(error))


flush_at_child_exit(_export_all, first=True)
