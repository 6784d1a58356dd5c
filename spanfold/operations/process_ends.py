"""Why the programs of a home last ended, and what of it is a problem now; how much room the disks of the home have."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from spanfold.embedded.disks import Room, stack_disks
from spanfold.embedded.process_ends import ProcessRecord, process_records
from spanfold.embedded.stack_state import StackState


@dataclass(frozen=True, slots=True)
class ProgramEnd:
    """How the last process of a program ended that nobody had stopped: `manner` is `exit code 1`, `SIGKILL` or `could not be
    started`, `error` the last one in its log, `position` (topic/partition@offset) the record that the error names.

    `incarnations`: how many processes of the program have been started on this home.
    """

    name: str
    incarnations: int
    ended_at: datetime
    manner: str
    error: str
    position: str | None


def program_ends(home: Path) -> Sequence[ProgramEnd]:
    """One for each program of this home that has ever ended unasked, in the order of their first start."""
    return [
        ProgramEnd(record.name, record.incarnations, end.ended_at, end.manner, end.error, end.position)
        for record in process_records(home)
        if (end := record.last_end)
    ]


def supervision_problems(stack: StackState, now: datetime) -> Iterator[str]:
    """A sentence about each program of the stack that keeps ending, and about each that does not run at this moment."""
    records: Mapping[str, ProcessRecord] = {record.name: record for record in process_records(stack.home)}
    for name, identity in {"supervisor": stack.supervisor, **stack.processes}.items():
        record = records.get(name, ProcessRecord(name))
        if loop := record.crash_loop(now):
            yield loop
        elif identity.process() is None:
            reason = f": it ended {record.last_end.explanation(now)}" if record.last_end else ""
            yield f"{name} (pid {identity.pid}) is not running{reason}"


def disk_problems(home: Path) -> Iterator[str]:
    """A sentence about each disk of the home that is as good as full."""
    return (disk.warning for disk in stack_disks(home) if disk.room is Room.TOO_LITTLE and disk.warning)


def disk_warnings(home: Path) -> Iterator[str]:
    """A sentence about each disk of the home that is filling up."""
    return (disk.warning for disk in stack_disks(home) if disk.room is Room.LITTLE and disk.warning)
