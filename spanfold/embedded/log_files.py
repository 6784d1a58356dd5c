"""The log files of a stack: HOME/logs/<program>.log, rotated while their programs write to them."""

import re
import shutil
from itertools import pairwise
from pathlib import Path
from typing import IO, Final

LOG_BYTES: Final = 10 * 1024 * 1024
OLD_LOGS: Final = 3
"""`<program>.log.1` is the youngest of the old ones."""

TAIL_LINES: Final = 15
ERROR_BYTES: Final = 64 * 1024
LONGEST_ERROR: Final = 500

_SEVERE: Final = re.compile(r"\b(?:FATAL|PANIC|CRITICAL|ERROR)\b")


def open_log(path: Path) -> IO[bytes]:
    """Open a log for appending."""
    return path.open("ab")


def rotate_logs(folder: Path, limit: int = LOG_BYTES) -> None:
    """Move what is in each log beyond `limit` bytes to `<name>.1`, the older ones one further; OLD_LOGS are kept.

    Programs keep the file open and append to it, so it is copied and emptied in place: lines that are written in
    between are lost. A disk that is full costs the old lines, never the room.
    """
    for log in folder.glob("*.log"):
        if log.stat().st_size > limit:
            _rotate(log)


def _rotate(log: Path) -> None:
    old = [log.with_name(f"{log.name}.{number}") for number in range(1, OLD_LOGS + 1)]
    for younger, older in reversed(list(pairwise(old))):
        if younger.exists():
            younger.replace(older)
    try:
        shutil.copyfile(log, old[0])
    except OSError:
        old[0].unlink(missing_ok=True)
    with log.open("r+b") as file:
        file.truncate(0)


def log_tail(path: Path) -> str:
    """The last lines of a log, for an error message."""
    return "\n".join(path.read_text(errors="replace").splitlines()[-TAIL_LINES:]) if path.exists() else ""


def last_error(log: Path, begin: int = 0, *, marked: bool = False) -> str:
    """The last error in what stands in the log from that byte on: the message of the command `spanfold`, else the exception of
    the last traceback, else the last line that is marked as an error, else (unless it must be `marked`) the last line.
    Empty when there is nothing.
    """
    lines = [line for line in _end_of(log, begin).splitlines() if line.strip()]
    for error in (_command_error(lines), _exception(lines), _severe(lines), lines[-1] if lines and not marked else ""):
        if error:
            return " ".join(error.split())[:LONGEST_ERROR]
    return ""


def _end_of(log: Path, begin: int) -> str:
    try:
        with log.open("rb") as file:
            size = file.seek(0, 2)
            # a log that is shorter than when the process began has been rotated
            file.seek(max(begin if begin <= size else 0, size - ERROR_BYTES))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def _command_error(lines: list[str]) -> str:
    """The message goes on to the end of the log."""
    for index in range(len(lines) - 1, -1, -1):
        if lines[index].startswith("spanfold: "):
            return " ".join([lines[index].removeprefix("spanfold: "), *map(str.strip, lines[index + 1 :])])
    return ""


def _exception(lines: list[str]) -> str:
    begins = [index for index, line in enumerate(lines) if "Traceback (most recent call last)" in line]
    for line in lines[begins[-1] + 1 :] if begins else ():
        text = line.lstrip(" |+-")
        if not line.startswith((" ", "\t")) and text:
            return text
    return ""


def _severe(lines: list[str]) -> str:
    return next((line for line in reversed(lines) if _SEVERE.search(line)), "")
