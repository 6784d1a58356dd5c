"""The questions of spanfold.queries, answered in SQL from the public views."""

from projections.queries import metrics, traces
from projections.queries.reader import Reader
from spanfold.buses import QueryBus

__all__ = ["Reader", "register"]


def register(bus: QueryBus, reader: Reader) -> None:
    """Answer all of spanfold.queries.QUERIES with this reader."""
    for handlers in (traces.handlers(reader), metrics.handlers(reader)):
        for query_type, handler in handlers.items():
            bus.register(query_type, handler)
