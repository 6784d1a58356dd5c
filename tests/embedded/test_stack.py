"""The embedded stack, for real: a Kafka and a Postgres boot, are used, die and come back."""

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import psutil
import psycopg
import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from spanfold.embedded.errors import HomeInUse
from spanfold.embedded.guard import is_alive
from spanfold.embedded.kafka import answers
from spanfold.embedded.process_ends import process_records
from spanfold.embedded.process_identity import Identity
from spanfold.embedded.programs import Program
from spanfold.embedded.stack import EmbeddedStack
from spanfold.embedded.stack_state import StackState, read_state, stop_running
from tests.support.waiting import until

pytestmark = pytest.mark.timeout(120)

Supervise = Callable[[Path], tuple[subprocess.Popen[bytes], StackState]]


def remember(state: StackState, word: str) -> None:
    """Put a word into both servers."""
    with psycopg.connect(state.postgres_dsn) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS words (word text)")
        connection.execute("INSERT INTO words VALUES (%s)", [word])
    admin = AdminClient({"bootstrap.servers": state.kafka_bootstrap})
    admin.create_topics([NewTopic("words", 1)])["words"].result()
    producer = Producer({"bootstrap.servers": state.kafka_bootstrap, "acks": "all"})
    producer.produce("words", word.encode())
    assert producer.flush(30) == 0


def recall(state: StackState) -> tuple[list[str], list[bytes | None]]:
    """The words in Postgres and those in Kafka."""
    with psycopg.connect(state.postgres_dsn) as connection:
        rows = [row[0] for row in connection.execute("SELECT word FROM words").fetchall()]
    consumer = Consumer(
        {"bootstrap.servers": state.kafka_bootstrap, "group.id": "recall", "auto.offset.reset": "earliest"}
    )
    consumer.subscribe(["words"])
    message = consumer.poll(30)
    consumer.close()
    return rows, [message.value()] if message else []


def is_gone(identity: Identity) -> bool:
    return identity.process() is None


def test_both_servers_answer_on_ports_of_their_own(stack: EmbeddedStack) -> None:
    with EmbeddedStack(ephemeral=True) as other:
        assert not set(stack.state.ports.values()) & set(other.state.ports.values())
        for state in (stack.state, other.state):
            assert answers(state.kafka_bootstrap)
            with psycopg.connect(state.postgres_dsn) as connection:
                assert connection.info.server_version >= 180000
                assert connection.execute("SHOW fsync").fetchone() == ("on",)
                assert connection.execute("SHOW server_encoding").fetchone() == ("UTF8",)
        temporary = [path.resolve(strict=True) for path in (other.state.home, other.state.home / "postgres")]
    assert not any(path.exists() for path in temporary)


def test_topics_are_not_created_by_accident(stack: EmbeddedStack) -> None:
    admin = AdminClient({"bootstrap.servers": stack.state.kafka_bootstrap})
    admin.list_topics("nobody-made-this", timeout=10)
    assert "nobody-made-this" not in admin.list_topics(timeout=10).topics


def test_a_second_stack_on_the_same_home_is_refused(stack: EmbeddedStack) -> None:
    with pytest.raises(HomeInUse, match=rf"\(pid {os.getpid()}\).*spanfold down"):
        EmbeddedStack(stack.state.home).start()
    assert read_state(stack.state.home) == stack.state


def test_a_launched_program_is_told_where_the_servers_are(stack: EmbeddedStack) -> None:
    told = stack.state.home / "told"
    script = 'echo "$SPANFOLD_KAFKA_BOOTSTRAP $SPANFOLD_POSTGRES_DSN" > told; exec sleep 600'
    stack.launch(Program("worker", ["/bin/sh", "-c", script], cwd=told.parent, ready=told.exists))
    until(told.read_text, "what the program was told")
    assert told.read_text().split() == [stack.state.kafka_bootstrap, stack.state.postgres_dsn]
    shown = read_state(stack.state.home)
    assert shown
    assert list(shown.pids)[-1] == "worker"


@pytest.mark.parametrize("name", ["kafka", "postgres"])
def test_a_killed_server_comes_back(stack: EmbeddedStack, name: str) -> None:
    before = stack.state
    os.kill(before.pids[name], signal.SIGKILL)
    until(lambda: stack.state.pids[name] != before.pids[name], f"another {name}")
    until(lambda: answers(before.kafka_bootstrap), "Kafka's answer")
    until(lambda: serves(before.postgres_dsn), "Postgres' answer")
    assert stack.state.ports == before.ports
    shown = read_state(before.home)
    assert shown
    assert shown.pids == stack.state.pids


def serves(dsn: str) -> bool:
    try:
        psycopg.connect(dsn, connect_timeout=5).close()
    except psycopg.OperationalError:
        return False
    return True


def test_nothing_outlives_a_killed_supervisor_but_the_data(home: Path, supervise: Supervise) -> None:
    supervisor, before = supervise(home)
    remember(before, "kept")
    family = psutil.Process(supervisor.pid).children(recursive=True)
    assert set(before.pids.values()) < {process.pid for process in family}
    supervisor.kill()
    supervisor.wait()
    until(lambda: not any(is_alive(process) for process in family), "the end of all processes", lambda: family)
    assert read_state(home) is None
    assert not stop_running(home)
    with EmbeddedStack(home) as stack:
        assert recall(stack.state) == (["kept"], [b"kept"])
        assert stack.state.ports == before.ports


def test_a_guard_that_is_killed_is_replaced_and_a_killed_supervisor_is_remembered(
    home: Path, supervise: Supervise
) -> None:
    supervisor, before = supervise(home)

    def guards() -> list[psutil.Process]:
        children = psutil.Process(supervisor.pid).children()
        return [child for child in children if is_alive(child) and "guard.py" in " ".join(child.cmdline())]

    (first,) = guards()
    first.kill()
    until(lambda: guards() and guards() != [first], "another guard")
    state = read_state(home)
    assert state
    assert state.processes == before.processes
    family = psutil.Process(supervisor.pid).children(recursive=True)
    supervisor.kill()
    supervisor.wait()
    until(lambda: not any(is_alive(process) for process in family), "the end of all processes", lambda: family)
    with EmbeddedStack(home):
        ends = {record.name: record.last_end for record in process_records(home)}
    assert ends["supervisor"]
    assert (ends["supervisor"].pid, ends["supervisor"].manner) == (supervisor.pid, "SIGKILL")
    assert ends["kafka"] is None


def test_what_outlived_a_killed_guard_is_taken_over(home: Path, supervise: Supervise) -> None:
    supervisor, before = supervise(home)
    children = psutil.Process(supervisor.pid).children()
    guard = next(child for child in children if "guard.py" in " ".join(child.cmdline()))
    guard.suspend()  # so that it can't react before it is killed, too
    supervisor.kill()
    supervisor.wait()
    guard.kill()
    assert not any(is_gone(identity) for identity in before.processes.values())
    successor, after = supervise(home)
    assert all(is_gone(identity) for identity in before.processes.values())
    assert after.ports == before.ports

    assert stop_running(home)
    assert successor.wait(60) == 0
    assert all(is_gone(identity) for identity in after.processes.values())
    assert not stop_running(home)
    assert "database system is shut down" in (home / "logs" / "postgres.log").read_text().splitlines()[-1]
