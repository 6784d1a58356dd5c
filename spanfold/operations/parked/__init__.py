"""Parked records: which there are, what one carries, and how they are settled.

A record is parked with its bytes, position and reason when it was accepted and can't become rows. It is settled by a fact in the
log: retried when the cause is repaired, or discarded for good.
"""

from spanfold.operations.parked.payload import Decoded, ParkedBytes, show_parked
from spanfold.operations.parked.records import (
    Filters,
    ParkedCount,
    ParkedList,
    ParkedRecord,
    State,
    count_parked,
    list_parked,
)
from spanfold.operations.parked.settling import (
    SETTLED_AS,
    Fact,
    Selection,
    SettleOptions,
    SettleReport,
    discard_parked,
    retry_parked,
    select_parked,
    settle,
)

__all__ = [
    "SETTLED_AS", "Decoded", "Fact", "Filters", "ParkedBytes", "ParkedCount", "ParkedList", "ParkedRecord",
    "Selection", "SettleOptions", "SettleReport", "State", "count_parked", "discard_parked", "list_parked", "retry_parked",
    "select_parked", "settle", "show_parked",
]  # fmt: skip
