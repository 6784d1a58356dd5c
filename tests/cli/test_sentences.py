"""What commands say where something is not as it should be: one sentence, on one line, also in a pipe."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from spanfold.cli.output import console, table
from spanfold.kafka.log_ends import log_bounds
from spanfold.language.settings import Settings, default_home
from spanfold.operations import status
from spanfold.operations.installation import Installation
from spanfold.postgres.dsn import url_with_defaults
from tests.support.commands import Invoke
from tests.support.databases import Ledger
from tests.support.publishing import publish
from tests.support.workers import Start, folded


@pytest.mark.parametrize("words", ["status", "sql 'SELECT 1'", "up --detach", "down", "doctor"])
def test_a_home_that_can_not_be_used_is_named(words: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    variables = os.environ | {"SPANFOLD_HOME": str(tmp_path / "file" / "home")}
    done = subprocess.run(
        [sys.executable, "-m", "spanfold", *words.split(" ", 1)], env=variables, capture_output=True, text=True
    )
    assert done.returncode == 3
    assert done.stderr.startswith(f"spanfold: {tmp_path}/file/home")
    assert done.stderr.endswith("Not a directory. SPANFOLD_HOME or --home names another folder\n")
    assert done.stderr.count("\n") == 1


def test_a_user_without_a_home_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    assert default_home().name == f"spanfold-{os.getuid()}"


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://me:secret@db/one?nosuch=1",
        "postgresql://me:secret@db/one?options=-c a=b",
        "postgresql://me:secret@db:99999/one",
    ],
)
def test_a_dsn_that_libpq_can_not_read_is_refused_in_a_sentence(invoke: Invoke, dsn: str) -> None:
    done = invoke("sql", "SELECT 1", SPANFOLD_POSTGRES_DSN=dsn)
    assert "SPANFOLD_POSTGRES_DSN" in str(done.exception), repr(done.exception)
    assert "secret" not in str(done.exception)


def test_wrong_usage_is_one_line_in_a_pipe() -> None:
    words = ["publish", "--" + "x" * 100]
    done = subprocess.run([sys.executable, "-m", "spanfold", *words], capture_output=True, text=True)
    assert done.returncode == 2
    assert f"Error: No such option: {words[1]}" in done.stderr.splitlines()


def test_lines_in_a_pipe_end_with_what_they_show(capsys: pytest.CaptureFixture[str]) -> None:
    console().print(table(("a", "b"), [("1", "x" * 200), ("22", "y")]))
    assert capsys.readouterr().out == f"a   b\n1   {'x' * 200}\n22  y\n"


def test_a_reader_gets_a_status_and_hears_what_is_not_known(
    stack_settings: Settings, topics: Any, ledger: Ledger
) -> None:
    as_reader = url_with_defaults(str(stack_settings.postgres_dsn), options="-c role=spanfold_reader")
    current = status.read_status(Installation(stack_settings.model_copy(update={"postgres_dsn": as_reader})))
    assert current.parked == {}
    assert current.warnings == [
        "whether a projection waits for a rebuild is not known: this role only reads spanfold's views"
    ]


def test_records_that_arrive_meanwhile_are_no_problem(
    start: Start, stack_settings: Settings, topics: Any, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = start()
    answers = [log_bounds(stack_settings)]
    publish(stack_settings, 200)
    folded(ledger, stack_settings, worker)
    # the log is asked before the records arrive, the checkpoints after they were folded
    monkeypatch.setattr(status, "log_bounds", lambda settings: answers.pop() if answers else log_bounds(settings))
    current = status.read_status(Installation(stack_settings))
    assert not answers
    assert not [problem for problem in current.problems if "outside the log" in problem]
    assert current.lag_total == 0
