"""Why each program of a home last ended: HOME/process-ends.json, which outlives the stack.

The supervisor keeps it (ProcessHistory). `status`, `doctor` and a worker's /healthz read it. An end that was asked for (`down`,
`workers restart`) is not in it.
"""

import json
import os
import re
import signal
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from spanfold.embedded.disks import Room, disk_of
from spanfold.embedded.log_files import last_error
from spanfold.embedded.process_identity import Identity
from spanfold.language.errors import InvalidInput, Misconfigured

ENDS_FILE: Final = "process-ends.json"

CRASH_LOOP_ENDS: Final = 3
CRASH_LOOP: Final = timedelta(minutes=10)
"""A program that ended so often within this time is unwell, however young its current process is,"""

RECOVERED: Final = timedelta(minutes=2)
"""until its last end is so long ago."""

CONFIGURATION_ERRORS: Final = frozenset({InvalidInput.exit_code, Misconfigured.exit_code})
"""Exit codes of a program that refuses its settings, topics or tables: another try alone changes nothing, so one end counts."""

SUPERVISOR: Final = "supervisor"
NOT_IN_ORDER: Final = "killed, or the machine went down, some time before this"

PROGRAM_VARIABLE: Final = "SPANFOLD_PROGRAM"
"""In the environment of a supervised process: the name of its program."""

_POSITION: Final = re.compile(r"[a-zA-Z0-9._-]+/\d+@\d+", re.ASCII)


@dataclass(frozen=True, slots=True)
class ProcessEnd:
    """How a process ended. `exit_code` is negative for a signal, None when the process could not be started; `error` is the last
    error in its log; `position` (topic/partition@offset) is the record that the error names.
    """

    pid: int | None
    started_at: datetime | None
    ended_at: datetime
    exit_code: int | None
    error: str
    position: str | None

    @property
    def manner(self) -> str:
        """`exit code 1`, `SIGKILL` or `could not be started`."""
        if self.exit_code is None:
            return "could not be started"
        if self.exit_code < 0:
            return _signal_name(-self.exit_code)
        return f"exit code {self.exit_code}"

    def explanation(self, now: datetime) -> str:
        """How long ago it ended, how and why: `12 s ago (exit code 1): no such table`."""
        reason = f": {self.error}" if self.error else ""
        return f"{_ago(now - self.ended_at)} ago ({self.manner}){reason}"


@dataclass(frozen=True, slots=True)
class ProcessRecord:
    """What is known of a program on this home. `incarnations`: how many processes of it were started; `recent_ends`: when it
    ended unasked within ten minutes before the last time, and since it was last started on request.
    """

    name: str
    incarnations: int = 0
    last_end: ProcessEnd | None = None
    recent_ends: Sequence[datetime] = ()

    def crash_loop(self, now: datetime) -> str | None:
        """A sentence when it keeps ending, or refuses its configuration, with the reason; None when it is well."""
        count = sum(now - end < CRASH_LOOP for end in self.recent_ends)
        if self.last_end is None or count == 0 or now - self.last_end.ended_at > RECOVERED:
            return None
        if count < CRASH_LOOP_ENDS and self.last_end.exit_code not in CONFIGURATION_ERRORS:
            return None
        minutes = int(CRASH_LOOP.total_seconds() // 60)
        times = "once" if count == 1 else f"{count} times"
        return f"{self.name} has ended {times} within {minutes} minutes, last {self.last_end.explanation(now)}"


class ProcessHistory:
    """The records of a home, for its supervisor. Thread-safe. A full disk delays writing (see `save`) and raises nothing."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._lock = threading.Lock()
        self._unsaved = False
        document = _read(home)
        self._records = {record.name: record for record in _records(document)}
        self.was_ready = bool(document.get("was_ready"))
        """Whether all programs of a stack on this home have been ready at once, ever."""

    def started(self, name: str) -> None:
        """A process of the program was started."""
        with self._lock:
            record = self._record(name)
            self._put(replace(record, incarnations=record.incarnations + 1))

    def ended(self, name: str, end: ProcessEnd) -> None:
        """A process ended, or could not be started, and nobody had asked for it."""
        with self._lock:
            record = self._record(name)
            recent = [time for time in record.recent_ends if end.ended_at - time < CRASH_LOOP]
            self._put(replace(record, last_end=end, recent_ends=[*recent, end.ended_at]))

    def forgive(self, names: Iterable[str]) -> None:
        """These programs start on request: their earlier ends are no crash loop any more. The last one is kept."""
        with self._lock:
            for name in names:
                self._put(replace(self._record(name), recent_ends=()))

    def supervisor_started(self, killed: Identity | None) -> None:
        """A stack begins; `killed` is the supervisor of the one before, if it did not stop in order."""
        if killed:
            began = datetime.fromtimestamp(killed.created, UTC)
            self.ended(
                SUPERVISOR, ProcessEnd(killed.pid, began, datetime.now(UTC), -signal.SIGKILL, NOT_IN_ORDER, None)
            )
        self.forgive([SUPERVISOR])
        self.started(SUPERVISOR)

    def ready(self) -> None:
        """All programs are ready."""
        with self._lock:
            self.was_ready = True
            self._save()

    def save(self) -> None:
        """Try again to write what could not be written."""
        with self._lock:
            if self._unsaved:
                self._save()

    def last_end(self, name: str) -> ProcessEnd | None:
        """How the program last ended."""
        with self._lock:
            return self._record(name).last_end

    def _record(self, name: str) -> ProcessRecord:
        return self._records.get(name, ProcessRecord(name))

    def _put(self, record: ProcessRecord) -> None:
        self._records[record.name] = record
        self._save()

    def _save(self) -> None:
        document = {
            "was_ready": self.was_ready,
            "programs": {name: asdict(record) for name, record in self._records.items()},
        }
        draft = self._home / f"{ENDS_FILE}.new"
        try:
            draft.write_text(json.dumps(document, indent=2, default=datetime.isoformat) + "\n")
            draft.replace(self._home / ENDS_FILE)
        except OSError:
            self._unsaved = True
        else:
            self._unsaved = False


def process_records(home: Path) -> list[ProcessRecord]:
    """What is known of the programs of this home, in the order of their first start; empty when no stack ever ran there."""
    return list(_records(_read(home)))


def own_problems(home: Path) -> list[str]:
    """That the program whose process this is keeps ending, in a sentence; empty when it doesn't, or isn't supervised."""
    name, now = os.environ.get(PROGRAM_VARIABLE), datetime.now(UTC)
    loops = (record.crash_loop(now) for record in process_records(home) if record.name == name)
    return [problem for problem in loops if problem]


def end_of(log: Path, pid: int, started_at: datetime, exit_code: int, log_begin: int) -> ProcessEnd:
    """The end, now, of a process that began to write to this log at `log_begin`."""
    # whoever was killed may have written anything last
    error = last_error(log, log_begin, marked=exit_code < 0) or _no_room(log)
    position = _POSITION.search(error)
    return ProcessEnd(pid, started_at, datetime.now(UTC), exit_code, error, position[0] if position else None)


def _no_room(log: Path) -> str:
    """That the disk is full: then a process can't write why it ended."""
    try:
        disk = disk_of(log.parent)
    except OSError:
        return ""
    return f"perhaps because the disk is full ({disk})" if disk.room is Room.TOO_LITTLE else ""


def never_started(error: OSError) -> ProcessEnd:
    """The end of a process that the system refused to start."""
    return ProcessEnd(None, None, datetime.now(UTC), None, str(error), None)


def _read(home: Path) -> Mapping[str, Any]:
    try:
        document = json.loads((home / ENDS_FILE).read_text())
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def _records(document: Mapping[str, Any]) -> Iterable[ProcessRecord]:
    for fields in document.get("programs", {}).values():
        last = fields["last_end"]
        yield ProcessRecord(
            fields["name"],
            fields["incarnations"],
            last
            and ProcessEnd(**{**last, "started_at": _time(last["started_at"]), "ended_at": _time(last["ended_at"])}),
            [datetime.fromisoformat(time) for time in fields["recent_ends"]],
        )


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _ago(elapsed: timedelta) -> str:
    seconds = max(int(elapsed.total_seconds()), 0)
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
