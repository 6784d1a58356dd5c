"""The records that erase a trace, and where a name still is."""

from typing import Any

from spanfold.language.events import TraceErased
from tests.support.databases import Ledger
from tests.support.strategies import NOW, Record, record

TABLES = """
SELECT schemaname, tablename FROM pg_tables
 WHERE schemaname LIKE 'spanfold%' OR schemaname IN (SELECT schema_name FROM spanfold_core.generations)
"""


def erased(trace_id: str, offset: int, again: int = 0, **changes: Any) -> Record:
    """The record at `offset` that erases the trace."""
    event = TraceErased(aggregate_id=trace_id, occurred_at=NOW + again, source="test", why=f"{trace_id} asked for it")
    return record(event, offset, **changes)


def tables_with(ledger: Ledger, words: str) -> list[str]:
    """Every table that has these words somewhere, as text or as bytes, but for the one that says who was erased."""
    patterns = [f"%{words}%", f"%{words.encode().hex()}%"]
    found = []
    for schema, table in ledger.execute(TABLES).fetchall():
        query = f'SELECT FROM "{schema}"."{table}" t WHERE t::text LIKE ANY (%s) LIMIT 1'
        if ledger.execute(query.encode(), (patterns,)).fetchone() is not None:
            found.append(f"{schema}.{table}")
    return [table for table in sorted(found) if table != "spanfold_core.erased"]
