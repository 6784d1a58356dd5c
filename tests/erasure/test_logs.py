"""Errors that were logged within an erased trace go with it; those of a service stay."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from spanfold.language.events import LogRecorded
from spanfold.language.topics import LOGS
from spanfold.projections.commit.store import Store
from spanfold.projections.projection import installed
from tests.support.databases import Ledger
from tests.support.erasure import erased, tables_with
from tests.support.strategies import NOW, Record, cut, record

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def logged(offset: int, key: str, **said: Any) -> Record:
    fields: dict[str, Any] = {"service_name": "shop", "body": f"no {offset}"} | said
    return record(LogRecorded(aggregate_id=key, occurred_at=NOW + offset, source="", **fields), offset)


LOG = [
    logged(0, TRACE, trace_id=TRACE),
    logged(1, "shop"),
    # keyed otherwise than it should be, whoever wrote these
    logged(2, "shop", trace_id="b"),
    logged(3, TRACE, trace_id="b"),
    logged(4, TRACE),
    logged(5, "b", trace_id="b"),
    erased(TRACE, 6),
    logged(7, TRACE, trace_id=TRACE),
    logged(8, "shop"),
]


def kept(ledger: Ledger) -> list[int]:
    return [version - 1 for (version,) in ledger.execute("SELECT version FROM spanfold.logs ORDER BY 1")]


def commit(ledger: Ledger, log: Sequence[Record], size: int) -> None:
    store = Store(installed())
    for each in cut(log, range(0, len(log), size)):
        store.commit(ledger, store.prepare(replace(each, topic=LOGS)))


@pytest.mark.parametrize("size", [1, 4, 100])
def test_the_records_of_the_key_go_and_no_others(ledger: Ledger, size: int) -> None:
    commit(ledger, LOG, size)
    assert kept(ledger) == [1, 2, 5, 8]
    assert tables_with(ledger, TRACE) == []


def test_a_key_that_is_a_service_goes_likewise(ledger: Ledger) -> None:
    commit(ledger, [*LOG, erased("shop", 9), logged(10, "shop")], 100)
    assert kept(ledger) == [5]
