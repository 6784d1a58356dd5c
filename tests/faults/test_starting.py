"""A worker that starts while Kafka or Postgres is away: it waits, says for what, and can be told to stop meanwhile."""

import re
import signal
import time
import uuid
from collections.abc import Callable
from typing import Final

import psycopg
import pytest

from spanfold.language.settings import Settings
from tests.faults.workers import Worker, Workers
from tests.support.victims import Process, Servers
from tests.support.waiting import until

AWAY: Final[dict[str, tuple[Callable[[Servers], Process], signal.Signals]]] = {
    "Postgres": (lambda servers: servers.postgres, signal.SIGINT),
    "Kafka": (lambda servers: servers.brokers[1], signal.SIGTERM),
}


@pytest.fixture
def workers(victims: Servers) -> Workers:
    """Of a group, topics and a database of their own."""
    name = f"s{uuid.uuid4().hex[:8]}"
    with psycopg.connect(victims.dsn("postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    return Workers(
        victims,
        Settings(
            kafka_bootstrap=victims.bootstrap, postgres_dsn=victims.dsn(name), topic_prefix=f"{name}.", group=name,
            home=victims.home / name, partitions=2, session_timeout_s=6.0,
        ),
    )  # fmt: skip


def _tries(worker: Worker, what: str) -> int:
    """How many attempts it says have failed because `what` is away."""
    return len(re.findall(rf"\baway\b.*what={what}", worker.output()))


@pytest.mark.parametrize("what", AWAY)
def test_it_waits_for_the_server_and_then_works(victims: Servers, workers: Workers, what: str) -> None:
    find, number = AWAY[what]
    server: Process = find(victims)
    server.end(number, within_s=60)
    try:
        worker = workers.start()
        until(lambda: _tries(worker, what) >= 2 or not worker.running, f"it waits for {what}", within_s=60)
        assert worker.running, worker.output()
    finally:
        server.start().await_ready()
    began = time.monotonic()
    workers.settled(1)
    print(f"{what}: {_tries(worker, what)} attempts, at work {time.monotonic() - began:.1f} s after it was back")
    assert worker.running, worker.output()
    assert worker.process.end(signal.SIGTERM) == 0, worker.output()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("what", AWAY)
def test_while_it_waits_it_ends_when_it_is_told_to(
    victims: Servers, workers: Workers, what: str, number: signal.Signals
) -> None:
    find, stop = AWAY[what]
    server: Process = find(victims)
    server.end(stop, within_s=60)
    try:
        worker = workers.start()
        until(lambda: _tries(worker, what) or not worker.running, f"it waits for {what}", within_s=60)
        began = time.monotonic()
        code = worker.process.end(number, within_s=15)
        took_s = time.monotonic() - began
    finally:
        server.start().await_ready()
    print(f"{number.name} while {what} is away: {took_s:.2f} s")
    assert code == 0, worker.output()
    assert took_s < 5, worker.output()  # on an idle machine a fraction of a second
    assert "Traceback" not in worker.output()


def test_a_wrong_password_ends_it_at_once(victims: Servers, workers: Workers) -> None:
    """Of a user whom this server does not trust as it does all others."""
    access = victims.home.resolve() / "postgres" / "data" / "pg_hba.conf"
    trusting = access.read_text()
    access.write_text(f"host all cautious 127.0.0.1/32 scram-sha-256\n{trusting}")
    with psycopg.connect(victims.dsn("postgres"), autocommit=True) as connection:
        connection.execute("CREATE ROLE cautious LOGIN PASSWORD 'right'")
        connection.execute("SELECT pg_reload_conf()")
        assert workers.settings.postgres_dsn
        dsn = workers.settings.postgres_dsn.replace("spanfold@", "cautious:secret@")
        workers.settings = workers.settings.model_copy(update={"postgres_dsn": dsn})
        worker = workers.start()
        try:
            until(lambda: not worker.running, "its end", within_s=60)
        finally:
            access.write_text(trusting)
            connection.execute("SELECT pg_reload_conf()")
            connection.execute("DROP ROLE cautious")
    assert worker.process.code != 0
    assert "Postgres refuses this client, check SPANFOLD_POSTGRES_DSN" in worker.output(), worker.output()
    assert "password authentication failed" in worker.output()
    assert not _tries(worker, "Postgres")
    assert "secret" not in worker.output()
