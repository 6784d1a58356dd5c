"""Logs: what of them explains an end, and how they are rotated while a program writes."""

import subprocess
from pathlib import Path

import pytest

from spanfold.embedded.log_files import OLD_LOGS, last_error, rotate_logs
from tests.support.waiting import until

TRACEBACK = """\
[^Worker]: Error: ZeroDivisionError('division by zero')
Traceback (most recent call last):
  File "orders.py", line 12, in fold
    return total / 0
ZeroDivisionError: division by zero
[INFO] [^Worker]: Stopping...
[INFO] [^Worker]: Closing event loop
"""


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("one\ntwo\n", "two"),
        ("", ""),
        (TRACEBACK, "ZeroDivisionError: division by zero"),
        (TRACEBACK + "spanfold: topics differ:\n- a\n- b\n", "topics differ: - a - b"),
        ("12:00 FATAL:  could not write file: No space left on device\n12:00 LOG:  shut down\n",
         "12:00 FATAL: could not write file: No space left on device"),
    ],
)  # fmt: skip
def test_the_error_of_a_log_is_its_most_telling_line(tmp_path: Path, text: str, error: str) -> None:
    log = tmp_path / "worker.log"
    log.write_text(text)
    assert last_error(log) == error


def test_only_what_the_process_itself_wrote_counts(tmp_path: Path) -> None:
    log = tmp_path / "worker.log"
    log.write_text("spanfold: old\n")
    begin = log.stat().st_size
    assert last_error(log, begin) == ""
    with log.open("a") as file:
        file.write("INFO  all   well\n")
    assert last_error(log, begin) == "INFO all well"
    assert last_error(log, begin, marked=True) == ""
    with log.open("a") as file:
        file.write("FATAL: new\n")
    assert last_error(log, begin) == "FATAL: new"
    assert last_error(tmp_path / "no such.log") == ""


def test_a_log_is_rotated_while_its_program_writes(tmp_path: Path) -> None:
    log, limit = tmp_path / "worker.log", 20_000
    with log.open("ab") as output:
        program = subprocess.Popen(["sh", "-c", "while :; do echo a line of the log; done"], stdout=output)
    try:
        for _ in range(OLD_LOGS + 2):
            until(lambda: log.stat().st_size > limit, "a log beyond the limit")
            rotate_logs(tmp_path, limit)
    finally:
        program.kill()
        program.wait()
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"worker.log", *(f"worker.log.{number}" for number in range(1, OLD_LOGS + 1))}
    with log.open("ab") as output:
        output.write(b"end\n")
    assert b"\0" not in log.read_bytes()
