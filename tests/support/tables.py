"""Rows of views, counted and hashed."""

from typing import Any

from tests.support.databases import Ledger


def rows(ledger: Ledger) -> dict[str, Any]:
    """Of every public view with rows that events made: how many, and the sum of the rows' hashes."""
    views = (
        "traces", "spans", "operation_minutes", "service_dependencies", "metrics", "metric_points", "metric_minutes",
        "logs", "error_logs", "services", "journal", "verdicts", "parked_records",
    )  # fmt: skip
    return {
        view: ledger.execute(
            f"SELECT count(*), coalesce(sum(hashtextextended(v::text, 0)::numeric), 0) FROM spanfold.{view} v".encode()
        ).fetchone()
        for view in views
    }


def checksums(ledger: Ledger) -> dict[str, tuple[int, int]]:
    """Of each public table: how many rows, and the sum of the rows' hashes."""
    return {
        view: ledger.execute(
            f"SELECT count(*), coalesce(sum(hashtextextended(v::text, 0)::numeric), 0) FROM spanfold.{view} v".encode()
        ).fetchone()  # type: ignore[misc]
        for view in ("traces", "spans", "journal", "verdicts", "parked_records")
    }
