"""How much room is left on the disks that a stack fills: the one of its home, and where Postgres keeps its data."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Final

GIB: Final = 1024**3
LITTLE_BYTES: Final = 5 * GIB
TOO_LITTLE_BYTES: Final = 1 * GIB
"""Kafka and Postgres stop when a disk is full."""

LITTLE_SHARE: Final = 0.10
TOO_LITTLE_SHARE: Final = 0.02
"""The same of a small disk: whichever is less counts."""


class Room(IntEnum):
    """How much room there is."""

    ENOUGH = 0
    LITTLE = 1
    TOO_LITTLE = 2


@dataclass(frozen=True, slots=True)
class Disk:
    """The file system of a folder; sizes in bytes."""

    folder: Path
    free: int
    total: int

    @property
    def room(self) -> Room:
        """How much is left."""
        if self.free < min(TOO_LITTLE_BYTES, TOO_LITTLE_SHARE * self.total):
            return Room.TOO_LITTLE
        return Room.LITTLE if self.free < min(LITTLE_BYTES, LITTLE_SHARE * self.total) else Room.ENOUGH

    def __str__(self) -> str:
        return f"{_size(self.free)} free for {self.folder}"

    @property
    def warning(self) -> str | None:
        """A sentence with what to do, when there is not enough room."""
        if self.room is Room.ENOUGH:
            return None
        effect = "will stop" if self.room is Room.LITTLE else "may stop at any moment"
        return (
            f"only {self}: when that disk is full, Kafka and Postgres {effect} until there is room. Free some, "
            "or delete old data with `spanfold prune`"
        )


def disk_of(folder: Path) -> Disk:
    """The disk of a folder, or of its first parent that exists. Raises OSError."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    usage = shutil.disk_usage(there)
    return Disk(folder, usage.free, usage.total)


def stack_disks(home: Path) -> list[Disk]:
    """The disks of a home, each once; what can't be looked at is left out."""
    disks: dict[int, Disk] = {}
    for folder in (home, (home / "postgres").resolve()):
        try:
            there = next(path for path in (folder, *folder.parents) if path.exists())
            disks.setdefault(os.stat(there).st_dev, disk_of(folder))
        except OSError:
            continue
    return list(disks.values())


class StackDisks:
    """Watches the disks of a home."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._rooms: dict[Path, Room] = {}

    def news(self) -> Iterator[str]:
        """A warning about each disk that has less room than at the last call, by a step of Room."""
        for disk in stack_disks(self._home):
            before = self._rooms.get(disk.folder, Room.ENOUGH)
            self._rooms[disk.folder] = disk.room
            if disk.room > before and disk.warning:
                yield disk.warning


def _size(count: int) -> str:
    return f"{count / GIB:.1f} GiB" if count >= GIB / 10 else f"{count / 1024**2:.1f} MiB"
