"""What `spanfold migrate` says of a database that lacks something, and that it needs no more."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest

from spanfold import migrations
from spanfold.language.errors import Misconfigured
from spanfold.language.settings import Settings
from spanfold.migrations import requirements
from spanfold.postgres.connections import connect
from spanfold.postgres.errors import translated
from spanfold.projections.generations import lifecycle
from spanfold.projections.projection import installed
from tests.support.databases import topics_nowhere
from tests.support.servers import Servers


class Owner:
    """A database of a login that may do nothing else."""

    def __init__(self, servers: Servers, clause: str = "") -> None:
        self.name = f"t{uuid.uuid4().hex[:8]}"
        user = psycopg.conninfo.conninfo_to_dict(servers.postgres_dsn)["user"]
        self.dsn = servers.dsn_of(self.name).replace(f"//{user}", f"//{self.name}:secret", 1)
        self._admin, self._servers = psycopg.connect(servers.postgres_dsn, autocommit=True), servers
        self.admin(f"CREATE ROLE {self.name} LOGIN PASSWORD 'secret'")
        self.admin(f"CREATE DATABASE {self.name} OWNER {self.name} TEMPLATE template0 {clause}")

    def admin(self, statement: str) -> None:
        self._admin.execute(statement.encode())

    def inside(self, statement: str) -> None:
        with psycopg.connect(self._servers.dsn_of(self.name), autocommit=True) as connection:
            connection.execute(statement.encode())

    def close(self) -> None:
        self.admin(f"DROP DATABASE {self.name} WITH (FORCE)")
        self.admin(f"DROP ROLE {self.name}")
        self._admin.close()


@contextmanager
def owner(servers: Servers, clause: str = "") -> Iterator[Owner]:
    made = Owner(servers, clause)
    try:
        yield made
    finally:
        made.close()


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_another_encoding_is_named(servers: Servers, encoding: str) -> None:
    with (
        owner(servers, f"ENCODING '{encoding}' LOCALE 'C'") as database,
        pytest.raises(Misconfigured, match=f"{database.name} has the encoding {encoding}, and spanfold needs UTF8"),
    ):
        migrations.upgrade(database.dsn)


def test_an_owner_needs_no_more_where_the_readers_role_exists(servers: Servers, prepared_database: str) -> None:
    topics = topics_nowhere(Settings()).values()
    with owner(servers) as database:
        lifecycle.prepare(database.dsn, topics, installed())
        with connect(database.dsn, "test") as connection:
            assert connection.execute("SELECT count(*) FROM spanfold.traces").fetchone() == (0,)
        assert lifecycle.prepare(database.dsn, topics, installed()) == []


def test_createrole_is_asked_for_only_if_the_readers_role_is_missing(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requirements, "FACTS", requirements.FACTS.replace("spanfold_reader", "spanfold_nobody"))
    with (
        owner(servers) as database,
        pytest.raises(
            Misconfigured, match="may not create roles: run CREATE ROLE spanfold_reader NOLOGIN as a superuser"
        ),
    ):
        migrations.upgrade(database.dsn)


def test_each_missing_privilege_is_named_with_its_remedy(servers: Servers) -> None:
    with owner(servers) as database:
        name = database.name
        database.admin(f"ALTER DATABASE {name} OWNER TO CURRENT_USER")
        database.admin(f"REVOKE TEMPORARY ON DATABASE {name} FROM public")
        with pytest.raises(Misconfigured) as missing:
            migrations.upgrade(database.dsn)
        sentences = str(missing.value)
        remedies = (f"TEMPORARY ON DATABASE {name}", f"CREATE ON DATABASE {name}", "USAGE, CREATE ON SCHEMA public")
        for privilege in remedies:
            assert f"GRANT {privilege} TO {name}" in sentences
            database.inside(f"GRANT {privilege} TO {name}")
        migrations.upgrade(database.dsn)


def test_a_schema_public_that_was_dropped_is_named(servers: Servers) -> None:
    with owner(servers) as database:
        database.inside("DROP SCHEMA public")
        with pytest.raises(Misconfigured, match="CREATE SCHEMA IF NOT EXISTS public"):
            migrations.upgrade(database.dsn)


def test_tables_of_another_role_are_named(servers: Servers) -> None:
    with owner(servers) as database, owner(servers) as other:
        migrations.upgrade(database.dsn)
        foreign = other.dsn.replace(f"/{other.name}", f"/{database.name}").replace(
            "//" + database.name, "//" + other.name
        )
        with pytest.raises(Misconfigured, match=f"belong to the role {database.name}: log in as {database.name}"):
            migrations.upgrade(foreign)
        database.admin(f"GRANT {database.name} TO {other.name}")
        migrations.upgrade(foreign)


def test_an_older_server_is_named(postgres_dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requirements, "OLDEST_POSTGRES", 99)
    with pytest.raises(Misconfigured, match="spanfold needs 99 or newer"):
        migrations.upgrade(postgres_dsn)


@pytest.mark.parametrize(
    "reported",
    [
        'FATAL:  role "nobody" does not exist',
        'FATAL:  role "nobody" is not permitted to log in',
        'FATAL:  permission denied for database "one"\nDETAIL:  User does not have CONNECT privilege.',
        "FATAL:  no such user: nobody",
        "FATAL:  no such database: one",
        "FATAL:  unsupported startup parameter: options",
        'FATAL:  unrecognized configuration parameter "nosuch"',
        "server does not support SSL, but SSL was required",
    ],
)
def test_a_permanent_refusal_is_one_line(reported: str) -> None:
    error = translated(psycopg.OperationalError(f'connection to server at "db", port 5432 failed: {reported}'))
    assert isinstance(error, Misconfigured)
    assert "SPANFOLD_POSTGRES_DSN" in str(error)
    assert "\n" not in str(error)
