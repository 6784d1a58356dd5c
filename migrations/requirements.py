"""What a database must be, and what its role may do, before it is migrated."""

from collections.abc import Iterator
from typing import Any, Final

from sqlalchemy import Connection, Engine, text

from spanfold.language.errors import Misconfigured

OLDEST_POSTGRES: Final = 15
READER: Final = "spanfold_reader"


def check_pooling(engine: Engine) -> None:
    """Misconfigured when a pooler lends one session of Postgres to two clients at once: locks and settings of a session would be
    another client's.
    """
    plain = engine.execution_options(isolation_level="AUTOCOMMIT")
    with plain.connect() as one, plain.connect() as other:
        pid = text("SELECT pg_backend_pid()")
        if one.execute(pid).scalar_one() == other.execute(pid).scalar_one():
            raise Misconfigured(
                "a pooler between spanfold and Postgres shares sessions between clients (PgBouncer's pool_mode = transaction or "
                "statement): set pool_mode = session for this database, or connect to Postgres directly"
            )


def check(connection: Connection) -> None:
    """Misconfigured with a sentence about each requirement that this database does not meet, and what to do."""
    missing = list(_missing(connection.execute(text(FACTS)).mappings().one()))
    if missing:
        raise Misconfigured(". ".join(missing))


def _missing(facts: Any) -> Iterator[str]:
    role, database = facts["role"], facts["database"]
    if facts["version"] < OLDEST_POSTGRES * 10_000:
        yield f"this is Postgres {facts['version'] // 10_000}, and spanfold needs {OLDEST_POSTGRES} or newer: upgrade the server"
    if facts["encoding"] != "UTF8":
        yield (
            f"the database {database} has the encoding {facts['encoding']}, and spanfold needs UTF8: create another one with "
            "CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0, and name it in SPANFOLD_POSTGRES_DSN"
        )
    if not facts["temporary"]:
        yield _not_granted(role, "create temporary tables", f"TEMPORARY ON DATABASE {database}")
    if facts["owner"] is None:
        yield from _missing_to_create(facts)
    elif not facts["owns"]:
        owner = facts["owner"]
        yield f"spanfold's tables belong to the role {owner}: log in as {owner}, or run GRANT {owner} TO {role}"


def _missing_to_create(facts: Any) -> Iterator[str]:
    role, database = facts["role"], facts["database"]
    if not facts["create"]:
        yield _not_granted(role, f"create schemas in the database {database}", f"CREATE ON DATABASE {database}")
    if not facts["public"]:
        yield (
            f"the role {role} may not create tables in the schema public of the database {database}: run CREATE SCHEMA IF NOT "
            f"EXISTS public; GRANT USAGE, CREATE ON SCHEMA public TO {role} as its owner or a superuser"
        )
    if not (facts["reader"] or facts["createrole"]):
        yield (
            f"the role {READER} does not exist, and {role} may not create roles: run CREATE ROLE {READER} NOLOGIN as a "
            "superuser, once for the whole server"
        )


def _not_granted(role: str, what: str, privilege: str) -> str:
    return f"the role {role} may not {what}: run GRANT {privilege} TO {role} as its owner or a superuser"


FACTS: Final = f"""
SELECT current_user::text AS role,
       quote_ident(current_database()) AS database,
       current_setting('server_version_num')::int AS version,
       current_setting('server_encoding') AS encoding,
       has_database_privilege(current_database(), 'TEMPORARY') AS temporary,
       has_database_privilege(current_database(), 'CREATE') AS create,
       to_regclass('public.schema_version') IS NOT NULL
         OR coalesce(has_schema_privilege(to_regnamespace('public')::oid, 'CREATE'), false) AS public,
       core.nspowner::regrole::text AS owner,
       pg_has_role(core.nspowner, 'USAGE') AS owns,
       EXISTS (SELECT FROM pg_roles WHERE rolname = '{READER}') AS reader,
       (SELECT rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = current_user) AS createrole
  FROM (SELECT) AS one
  LEFT JOIN pg_namespace AS core ON core.nspname = 'spanfold_core'
"""
