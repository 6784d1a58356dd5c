"""The supervisor and its guard, with programs that misbehave."""

import os
import signal
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest

from spanfold.embedded.errors import ChildFailed
from spanfold.embedded.guard import Stoppable, stop
from spanfold.embedded.process_ends import ProcessEnd, ProcessHistory, process_records
from spanfold.embedded.process_identity import Identity
from spanfold.embedded.programs import Guard, Program
from spanfold.embedded.supervisor import LONGEST_PAUSE_S, NotReady, Supervisor, _Child
from spanfold.language.errors import InvalidInput
from tests.support.waiting import until


@pytest.fixture
def history(tmp_path: Path) -> ProcessHistory:
    return ProcessHistory(tmp_path)


@pytest.fixture
def supervisor(tmp_path: Path, history: ProcessHistory) -> Iterator[Supervisor]:
    guard = Guard(tmp_path / "guard.log", on_death=lambda: None)
    supervisor = Supervisor(tmp_path, guard, history, on_change=lambda: None)
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


def test_a_program_that_keeps_ending_is_started_again_and_the_others_are_left_alone(
    supervisor: Supervisor, history: ProcessHistory, tmp_path: Path
) -> None:
    supervisor.start(shell("server", "exec sleep 600"))
    server = supervisor.processes["server"]
    (problem,) = supervisor.launch(shell("flaky", "echo no such table; exit 7", ready=lambda: False))
    assert problem == NotReady("flaky", "flaky ended before it was ready (exit code 7): no such table", 7)
    until(lambda: (tmp_path / "flaky.log").read_text().count("no such table") > 4, "a fifth start")
    assert supervisor.processes["server"] == server
    assert server.process()


def test_pauses_grow_to_half_a_minute() -> None:
    child = _Child(shell("flaky", "exit 7"))
    pauses = []
    for _ in range(12):
        child.ended(7)
        pauses.append(child.pause_s)
    assert pauses == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0, 30.0, 30.0, 30.0]


def test_why_a_program_ended_outlives_the_supervisor(
    supervisor: Supervisor, history: ProcessHistory, tmp_path: Path
) -> None:
    script = "echo all well; echo 'spanfold: spanfold.traces/2@41 is missing'; exit 3"
    (problem,) = supervisor.launch(shell("projector-1", script, ready=lambda: False))
    assert problem.is_configuration_error
    supervisor.stop()
    (record,) = process_records(tmp_path)
    assert record.last_end
    assert (record.last_end.exit_code, record.last_end.manner) == (3, "exit code 3")
    assert record.last_end.error == "spanfold.traces/2@41 is missing"
    assert record.last_end.position == "spanfold.traces/2@41"
    assert record.incarnations >= len(record.recent_ends) >= 1


def test_an_end_that_was_asked_for_is_no_reason_to_worry(supervisor: Supervisor, tmp_path: Path) -> None:
    supervisor.launch(shell("worker", "exec sleep 600"), shell("other", "exec sleep 600"))
    before = dict(supervisor.processes)
    for _ in range(4):
        restarted = supervisor.processes["worker"]
        supervisor.restart(["worker"])
        until(lambda: supervisor.processes["worker"] != restarted, "another process")  # noqa: B023  # called at once
    assert supervisor.processes["other"] == before["other"]
    supervisor.stop()
    assert {record.name: record.last_end for record in process_records(tmp_path)} == {"worker": None, "other": None}


def test_a_restart_ends_a_pause(supervisor: Supervisor, tmp_path: Path) -> None:
    """With a pause of minutes the second process would not come while this test waits."""
    supervisor.launch(shell("worker", "exec sleep 600"))
    child = supervisor._children["worker"]
    child._in_a_row = 30
    first = supervisor.processes["worker"]
    os.kill(first.pid, signal.SIGKILL)
    until(lambda: not child.runs, "its end")
    began = time.monotonic()
    supervisor.restart(["worker"])
    until(lambda: supervisor.processes["worker"] != first, "another process")
    assert time.monotonic() - began < LONGEST_PAUSE_S / 2


def test_a_program_that_the_system_refuses_to_start_is_tried_again(
    supervisor: Supervisor, history: ProcessHistory, tmp_path: Path
) -> None:
    folder = tmp_path / "not there yet"
    (problem,) = supervisor.launch(shell("worker", "exec sleep 600", cwd=folder))
    assert "could not be started" in problem.problem
    assert str(folder) in problem.problem
    folder.mkdir()
    until(lambda: supervisor.processes.get("worker"), "its start")
    assert history.last_end("worker")


def test_three_ends_within_ten_minutes_are_a_crash_loop_until_the_next_start_on_request(
    history: ProcessHistory,
) -> None:
    noon = datetime(2026, 11, 28, 12, tzinfo=UTC)
    for minutes in (0, 3, 6):
        end = ProcessEnd(4711, noon, noon + timedelta(minutes=minutes), -9, "", None)
        history.ended("projector-1", end)

    def loop(minutes: float) -> str | None:
        (record,) = process_records(history._home)
        return record.crash_loop(noon + timedelta(minutes=minutes))

    assert loop(6.2) == "projector-1 has ended 3 times within 10 minutes, last 12 s ago (SIGKILL)"
    assert loop(8.1) is None
    history.forgive(["projector-1"])
    assert loop(6.2) is None


def test_who_refuses_its_configuration_is_unwell_at_once(history: ProcessHistory) -> None:
    noon = datetime(2026, 11, 28, 12, tzinfo=UTC)
    history.ended("projector-1", ProcessEnd(4711, noon, noon, 3, "no such topic", None))
    (record,) = process_records(history._home)
    loop = record.crash_loop(noon + timedelta(seconds=5))
    assert loop == "projector-1 has ended once within 10 minutes, last 5 s ago (exit code 3): no such topic"


def test_another_guard_takes_over_the_children(tmp_path: Path, history: ProcessHistory) -> None:
    first, second = (Guard(tmp_path / "guard.log", on_death=lambda: None) for _ in range(2))
    supervisor = Supervisor(tmp_path, first, history, on_change=lambda: None)
    supervisor.launch(shell("worker", "exec sleep 600"))
    first.process.kill()
    supervisor.watched_by(second)
    second.release()  # as if this process had ended
    until(lambda: not supervisor.processes["worker"].process(), "the worker's end")
    supervisor.stop()
    first.forget()


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
