"""The supervisor and its guard, with programs that misbehave."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue

import psutil
import pytest

from spanfold.embedded.errors import ChildFailed
from spanfold.embedded.guard import Stoppable, stop
from spanfold.embedded.process_identity import Identity
from spanfold.embedded.programs import Guard, Program
from spanfold.embedded.supervisor import Supervisor
from spanfold.language.errors import InvalidInput
from tests.support.waiting import until


@pytest.fixture
def failures() -> SimpleQueue[ChildFailed]:
    return SimpleQueue()


@pytest.fixture
def supervisor(tmp_path: Path, failures: SimpleQueue[ChildFailed]) -> Iterator[Supervisor]:
    guard = Guard(tmp_path / "guard.log", on_death=lambda: None)
    supervisor = Supervisor(tmp_path, guard, failures.put, on_change=lambda: None)
    yield supervisor
    supervisor.stop()
    guard.release()


def shell(name: str, script: str, **more: object) -> Program:
    return Program(name, ["/bin/sh", "-c", script], **more)  # type: ignore[arg-type]


def test_a_program_that_ends_before_it_is_ready_is_an_error_that_shows_its_log(supervisor: Supervisor) -> None:
    with pytest.raises(ChildFailed, match=r"(?s)broken ended with 3 before it was ready.*no such table"):
        supervisor.start(shell("broken", "echo no such table; exit 3", ready=lambda: False))


def test_a_program_that_is_never_ready_is_stopped_again(supervisor: Supervisor, tmp_path: Path) -> None:
    with pytest.raises(ChildFailed, match=r"was not ready within 0\.2 s"):
        supervisor.start(shell("slow", "echo $$; exec sleep 600", ready=lambda: False, ready_timeout_s=0.2))
    assert supervisor.processes == {}
    assert not psutil.pid_exists(int((tmp_path / "slow.log").read_text()))


def test_a_program_that_keeps_dying_is_given_up(
    supervisor: Supervisor, failures: SimpleQueue[ChildFailed], tmp_path: Path
) -> None:
    supervisor.start(shell("flaky", "echo started; sleep 0.05; exit 7"))
    failure = failures.get(timeout=30)
    assert "flaky died 5 times in a row, the last time with 7" in str(failure)
    assert (tmp_path / "flaky.log").read_text().count("started") == 5


def test_programs_stop_last_first_with_their_own_signals(supervisor: Supervisor, tmp_path: Path) -> None:
    order = tmp_path / "order"
    for name, stop_signal in (("first", signal.SIGINT), ("second", signal.SIGTERM)):
        script = (
            f"trap 'echo {name} >> {order}; exit' {stop_signal.name[3:]}; touch {name}; while :; do sleep 0.02; done"
        )
        supervisor.start(shell(name, script, cwd=tmp_path, stop_signal=stop_signal, ready=(tmp_path / name).exists))
    assert supervisor.stop() == []
    assert order.read_text().split() == ["second", "first"]


def test_a_program_that_ignores_its_signal_is_killed(supervisor: Supervisor, tmp_path: Path) -> None:
    script = "trap '' TERM; touch deaf; while :; do sleep 0.02; done"
    deaf = shell("deaf", script, cwd=tmp_path, stop_timeout_s=0.2, ready=(tmp_path / "deaf").exists)
    supervisor.start(deaf)
    process = supervisor.processes["deaf"]
    assert supervisor.stop() == ["deaf"]
    assert process.process() is None


def test_names_are_unique(supervisor: Supervisor) -> None:
    supervisor.start(shell("one", "sleep 600"))
    with pytest.raises(InvalidInput, match="'one' is already running"):
        supervisor.start(shell("one", "sleep 600"))


def test_another_process_with_the_same_pid_is_not_the_same() -> None:
    own = Identity.of_this_process()
    assert own.process()
    assert own._replace(created=own.created - 60).process() is None


def test_a_process_that_is_gone_already_needs_no_signal() -> None:
    pid = os.posix_spawn("/bin/sh", ["sh", "-c", "exit 0"], os.environ)
    gone = psutil.Process(pid)
    os.waitpid(pid, 0)
    assert stop(Stoppable("gone", gone, signal.SIGTERM, 1.0))


def test_a_guard_that_dies_is_noticed(tmp_path: Path) -> None:
    deaths: list[str] = []
    guard = Guard(tmp_path / "guard.log", on_death=lambda: deaths.append("guard"))
    guard.process.kill()
    until(lambda: deaths, "word of the guard's death")
    guard.release()


def test_a_released_guard_removes_what_it_was_told_to(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "deeper").mkdir(parents=True)
    guard = Guard(tmp_path / "guard.log", on_death=lambda: pytest.fail("released"), remove=[folder])
    guard.release()
    assert not folder.exists()
