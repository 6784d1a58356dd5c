"""A worker that Postgres does not let in ends at once, and says what to check. See tests/faults for servers that are away."""

import re
from collections.abc import Callable
from typing import Final

import psycopg
import pytest

from spanfold.language.errors import Misconfigured
from spanfold.language.settings import Settings
from spanfold.postgres.errors import is_transient
from tests.support.waiting import until
from tests.support.workers import Start

REFUSED: Final[dict[str, tuple[Callable[[str], str], str]]] = {
    "no such database": (lambda dsn: f"{dsn}_not", 'database "t[0-9a-f]+_not" does not exist'),
    "no such user": (lambda dsn: re.sub("//[^@]+@", "//nobody_here:secret@", dsn), "nobody_here"),
}


@pytest.mark.parametrize("wrong", REFUSED)
def test_a_postgres_that_refuses_it_ends_it_at_once(
    postgres_dsn: str, stack_settings: Settings, start: Start, wrong: str
) -> None:
    change, complaint = REFUSED[wrong]
    worker = start(postgres_dsn=change(postgres_dsn))
    until(lambda: worker.process.poll() is not None, "its end", worker.output)
    assert worker.process.returncode == Misconfigured.exit_code, worker.output()
    assert "Postgres refuses this client, check SPANFOLD_POSTGRES_DSN" in worker.output()
    assert re.search(complaint, worker.output()), worker.output()
    assert "away" not in worker.output()
    assert "secret" not in worker.output()


def test_a_dsn_that_is_no_url_ends_it_and_its_password_stays_untold(stack_settings: Settings, start: Start) -> None:
    worker = start(postgres_dsn="host=127.0.0.1 user=me password=secret")
    until(lambda: worker.process.poll() is not None, "its end", worker.output)
    assert worker.process.returncode == Misconfigured.exit_code, worker.output()
    assert "SPANFOLD_POSTGRES_DSN" in worker.output()
    assert "secret" not in worker.output()


@pytest.mark.parametrize(
    ("error", "transient"),
    [
        (psycopg.errors.InvalidPassword("28P01"), False),
        (psycopg.errors.InvalidCatalogName("3D000"), False),
        (psycopg.errors.CannotConnectNow("57P03"), True),
        (psycopg.OperationalError('FATAL:  password authentication failed for user "a"'), False),
        (psycopg.OperationalError("FATAL:  the database system is starting up"), True),
        (psycopg.OperationalError("Connection refused"), True),
        (psycopg.OperationalError('failed to resolve host "postgres"'), True),
    ],
)
def test_only_what_may_pass_is_tried_again(error: psycopg.Error, transient: bool) -> None:
    assert is_transient(error) is transient
