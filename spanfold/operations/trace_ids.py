"""Finds a trace by its trace_hex, for tools that know no other id."""

from typing import Final

from spanfold.language.ids import trace_hex
from spanfold.operations.reading import reading


def id_of_trace_hex(dsn: str, hex_id: str) -> str | None:
    """The id of the trace whose trace_hex this is; None if no table has one. What has only been parked of a trace is not
    searched. Errors are those of `reading`.
    """
    if trace_hex(hex_id) != hex_id:
        return None
    with reading(dsn, "spanfold trace") as connection:
        row = connection.execute(WITH_TRACE_HEX, {"hex_id": hex_id}).fetchone()
    return None if row is None else str(row[0])


WITH_TRACE_HEX: Final = """
SELECT trace_id FROM spanfold.traces WHERE trace_hex = %(hex_id)s
 UNION ALL
SELECT trace_id FROM spanfold.logs WHERE trace_hex = %(hex_id)s
 UNION ALL
SELECT aggregate_id FROM spanfold.erased WHERE spanfold.trace_hex(aggregate_id) = %(hex_id)s
 LIMIT 1
"""
