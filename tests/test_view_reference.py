"""docs/views.md: what it says of the views is what a prepared database has, and its examples work."""

from pathlib import Path

import pytest

from spanfold.operations.view_reference import EXAMPLES, columns_of_views, reference
from tests.support.databases import Ledger

PAGE = Path(__file__).parent.parent / "docs" / "views.md"


def test_the_view_reference_is_current(ledger: Ledger) -> None:
    assert PAGE.read_text() == reference(ledger), "run `make docs`"


def test_every_view_and_each_of_its_columns_has_a_comment(ledger: Ledger) -> None:
    columns = columns_of_views(ledger)
    assert [f"{column.view}.{column.column}" for column in columns if not column.comment] == []
    assert {column.view for column in columns if not column.view_comment} == set()


def test_every_view_has_an_example(ledger: Ledger) -> None:
    assert set(EXAMPLES) == {column.view for column in columns_of_views(ledger)}


@pytest.mark.parametrize("view", EXAMPLES)
def test_an_example_runs_and_uses_its_view(ledger: Ledger, view: str) -> None:
    ledger.execute(EXAMPLES[view].encode())
    ledger.execute(f"CREATE TEMP VIEW example AS {EXAMPLES[view]}".encode())
    assert ledger.execute(USES, (f"spanfold.{view}",)).fetchone() == (True,)


USES = """
SELECT EXISTS (
       SELECT FROM pg_rewrite r
         JOIN pg_depend d ON (d.classid, d.objid) = ('pg_rewrite'::regclass, r.oid)
        WHERE r.ev_class = 'example'::regclass
          AND d.refclassid = 'pg_class'::regclass AND d.refobjid = %s::regclass)
"""
