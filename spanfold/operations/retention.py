"""What the embedded servers keep by default, so that they fit on a laptop: `spanfold up` prunes what is older, or more.

Only the servers that the stack started itself have these defaults; each of the settings SPANFOLD_LOG_RETENTION_DAYS,
SPANFOLD_LOG_RETENTION_BYTES, SPANFOLD_JOURNAL_RETENTION_DAYS and SPANFOLD_TABLE_RETENTION_DAYS replaces one, and `{}` keeps
everything. Nothing is deleted that a checkpoint, a snapshot or a late event may still need: see `spanfold prune`.
"""

import logging
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from spanfold.embedded.disks import Room, stack_disks
from spanfold.embedded.log_files import last_error, open_log
from spanfold.embedded.segments import offset_of_newest
from spanfold.embedded.stack_state import StackState
from spanfold.language.errors import Misconfigured
from spanfold.language.settings import Settings
from spanfold.language.topics import LOGS, METRICS, TRACES, Partition, TopicOnBroker

KEPT_DAYS: Final = 30
KEPT_BYTES: Final = 512 * 1024 * 1024
"""Of each partition's log."""

FIRST_S: Final = 600.0
EVERY_S: Final = 6 * 3600.0
EVERY_WITH_LITTLE_ROOM_S: Final = 3600.0
END_S: Final = 30.0

log = logging.getLogger("spanfold.supervisor")

TELEMETRY: Final = (TRACES.name, METRICS.name, LOGS.name)
OF_KAFKA: Final[Mapping[str, Mapping[str, int]]] = {
    "log_retention_days": dict.fromkeys(TELEMETRY, KEPT_DAYS),
    "log_retention_bytes": dict.fromkeys(TELEMETRY, KEPT_BYTES),
}
OF_POSTGRES: Final[Mapping[str, Mapping[str, int]]] = {
    "journal_retention_days": dict.fromkeys((TRACES.name, LOGS.name), KEPT_DAYS),
    "table_retention_days": dict.fromkeys(("spans", "metric_points", "logs"), KEPT_DAYS),
}


def with_default_retention(settings: Settings, stack: StackState | None) -> Settings:
    """The settings, with the defaults of this stack's own servers where nothing else is set."""
    defaults: dict[str, Mapping[str, int]] = {}
    if stack and stack.has_own_kafka:
        defaults |= OF_KAFKA
    if stack and stack.has_own_postgres:
        defaults |= OF_POSTGRES
    unset: dict[str, Any] = {name: days for name, days in defaults.items() if name not in settings.model_fields_set}
    return settings.model_copy(update=unset)


def retention_facts(settings: Settings, stack: StackState) -> Mapping[str, Mapping[str, int]]:
    """What is kept of each topic's log, journal and each table, by setting."""
    chosen = with_default_retention(settings, stack)
    return {name: getattr(chosen, name) for name in (*OF_KAFKA, *OF_POSTGRES)}


def described_retention(settings: Settings, stack: StackState) -> str:
    """The same in a line."""
    days, size, journal, tables = retention_facts(settings, stack).values()
    parts = [
        *_described("log", days, "days"),
        *_described("log of a partition", {name: count // 2**20 for name, count in size.items()}, "MiB"),
        *_described("journal", journal, "days"),
        *_described("rows", tables, "days"),
    ]
    return "; ".join(parts) or "everything is kept"


def _described(what: str, kept: Mapping[str, int], unit: str) -> Iterator[str]:
    by_amount: dict[int, list[str]] = {}
    for name, amount in kept.items():
        by_amount.setdefault(amount, []).append(name.removeprefix("spanfold."))
    for amount, names in by_amount.items():
        yield f"{what}: {amount} {unit} of {', '.join(names)}"


def begins_by_size(
    settings: Settings, stack: StackState | None, topics: Mapping[str, TopicOnBroker]
) -> Mapping[Partition, int]:
    """By topic and partition the offset at which the newest SPANFOLD_LOG_RETENTION_BYTES of its log begin, where there is more.

    Misconfigured when they are set for a topic that there is not, or for a Kafka that the stack did not start.
    """
    kept = settings.log_retention_bytes
    if not kept:
        return {}
    if unknown := sorted(kept.keys() - topics.keys()):
        raise Misconfigured(
            f"SPANFOLD_LOG_RETENTION_BYTES names {', '.join(unknown)}: no such topic; expected one of {', '.join(sorted(topics))}"
        )
    if stack is None or not stack.has_own_kafka:
        raise Misconfigured(
            "SPANFOLD_LOG_RETENTION_BYTES is for the Kafka that `spanfold up` starts: of another one only days can be kept, "
            "with SPANFOLD_LOG_RETENTION_DAYS"
        )
    begins = {
        (name, partition): offset_of_newest(stack.home / "kafka" / "data" / f"{topics[name].name}-{partition}", size)
        for name, size in kept.items()
        for partition in range(topics[name].partitions)
    }
    return {at: offset for at, offset in begins.items() if offset is not None}


@contextmanager
def pruned_regularly(home: Path) -> Iterator[None]:
    """Until the block ends, `spanfold prune` runs ten minutes after the start and then every six hours; every hour while a disk
    has little room. It runs in a process of its own, and its output is in logs/prune.log.
    """
    ending = threading.Event()
    thread = threading.Thread(target=_prune_regularly, args=(home, ending), name="retention", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join()


def _prune_regularly(home: Path, ending: threading.Event) -> None:
    pause_s = FIRST_S
    while not ending.wait(pause_s):
        try:
            _prune(home, ending)
        except OSError as error:
            log.warning("`spanfold prune` could not be started: %s", error)
        has_room = all(disk.room is Room.ENOUGH for disk in stack_disks(home))
        pause_s = EVERY_S if has_room else EVERY_WITH_LITTLE_ROOM_S


def _prune(home: Path, ending: threading.Event) -> None:
    """Run it to its end, or until the stack stops: it resumes the next time."""
    path = home / "logs" / "prune.log"
    begin = path.stat().st_size if path.exists() else 0
    with open_log(path) as output:
        child = subprocess.Popen(
            [sys.executable, "-m", "spanfold", "prune", "--home", str(home)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    while child.poll() is None and not ending.wait(1):
        pass
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(END_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
    elif child.returncode:
        log.warning("`spanfold prune` ended with exit code %s: %s", child.returncode, last_error(path, begin))
