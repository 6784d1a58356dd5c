"""The rooms of the house: where they stand, and who may look into the database."""

from pathlib import Path

import psycopg
import pytest

from tests.support.databases import Ledger

ROOT = Path(__file__).parent.parent
ROOMS = ("schemas", "migrations", "producers", "stream_processors", "projections")


def test_the_rooms_at_the_top_are_the_rooms_of_the_package() -> None:
    for room in ROOMS:
        link = ROOT / "spanfold" / room
        assert link.is_symlink()
        assert link.readlink() == Path("..") / room
        assert (ROOT / room / "__init__.py").exists()


# In the database

COLUMNS = """
SELECT c.relname, a.attname, col_description(c.oid, a.attnum)
  FROM pg_class c
  JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
 WHERE c.relnamespace = 'spanfold'::regnamespace AND c.relkind IN ('v', 'm', 'r', 'p')
"""

RELATIONS = """
SELECT format('%I.%I', n.nspname, c.relname), n.nspname, c.relkind, obj_description(c.oid)
  FROM pg_class c
  JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f')
   AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
   AND n.nspname NOT LIKE 'pg\\_temp\\_%'
"""


def test_in_schema_spanfold_there_are_views_only_and_each_says_what_it_is(ledger: Ledger) -> None:
    views = {name: words for name, schema, kind, words in ledger.execute(RELATIONS) if schema == "spanfold"}
    kinds = {kind for _, schema, kind, _ in ledger.execute(RELATIONS) if schema == "spanfold"}
    assert kinds == {"v"}
    assert {"spanfold.traces", "spanfold.spans", "spanfold.journal", "spanfold.verdicts"} <= views.keys()
    assert {"spanfold.parked_records", "spanfold.checkpoints"} <= views.keys()
    assert [name for name, words in views.items() if not words] == []


def test_every_column_of_every_public_view_says_what_it_means(ledger: Ledger) -> None:
    described = ledger.execute(COLUMNS).fetchall()
    assert len(described) > 50
    assert [f"{view}.{column}" for view, column, words in described if not words] == []
    # a template's braces, doubled or not filled in, would be shown as they are
    assert [words for _, _, words in described if "{{" in words or "{schema}" in words] == []


def test_every_column_whose_name_ends_in_at_is_a_time(ledger: Ledger) -> None:
    query = """
        SELECT format('%I.%I.%I', table_schema, table_name, column_name), data_type
          FROM information_schema.columns
         WHERE column_name LIKE '%\\_at' AND table_schema NOT IN ('pg_catalog', 'information_schema')
    """
    types = dict(ledger.execute(query).fetchall())
    assert len(types) > 20
    assert {name for name, kind in types.items() if kind != "timestamp with time zone"} == set()


def as_reader(ledger: Ledger, statement: str) -> None:
    with ledger.transaction(force_rollback=True):
        ledger.execute("SET LOCAL ROLE spanfold_reader")
        ledger.execute(statement.encode())


def test_a_reader_may_read_every_view_and_nothing_else(ledger: Ledger) -> None:
    relations = ledger.execute(RELATIONS).fetchall()
    views = [name for name, schema, _, _ in relations if schema == "spanfold"]
    others = [name for name, schema, _, _ in relations if schema != "spanfold"]
    assert {"spanfold_core.checkpoints", "traces_g1.traces"} <= set(others)
    for view in views:
        as_reader(ledger, f"SELECT * FROM {view} LIMIT 1")
    for table in others:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            as_reader(ledger, f"SELECT * FROM {table} LIMIT 1")


def test_a_reader_has_no_right_but_to_read(ledger: Ledger) -> None:
    query = """
        SELECT c.oid::regclass::text, right_
          FROM pg_class c, unnest(ARRAY['INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'TRIGGER', 'REFERENCES']) AS right_
         WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND c.relnamespace <> 'pg_catalog'::regnamespace
           AND has_table_privilege('spanfold_reader', c.oid, right_)
    """
    assert ledger.execute(query).fetchall() == []


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE spanfold.mine (a int)",
        "CREATE TABLE spanfold_core.mine (a int)",
        "CREATE TABLE public.mine (a int)",
        "CREATE SCHEMA mine",
        "DROP VIEW spanfold.traces",
        "ALTER VIEW spanfold.traces RENAME TO mine",
        "DELETE FROM spanfold.parked_records",
        "UPDATE traces_g1.spans SET kind = 'x'",
    ],
)
def test_a_reader_may_change_nothing(ledger: Ledger, statement: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        as_reader(ledger, statement)


def test_the_reader_cannot_log_in_and_is_no_superuser(ledger: Ledger) -> None:
    query = "SELECT rolcanlogin, rolsuper, rolcreatedb, rolcreaterole FROM pg_roles WHERE rolname = 'spanfold_reader'"
    assert ledger.execute(query).fetchone() == (False, False, False, False)
