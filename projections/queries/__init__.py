"""The questions of spanfold.queries, answered in SQL from the public views."""

from spanfold.application.buses import QueryBus
from spanfold.projections.queries import metrics, traces
from spanfold.projections.queries.reader import Reader

__all__ = ["Reader", "register"]


def register(bus: QueryBus, reader: Reader) -> None:
    """Answer all of application.queries.QUERIES with this reader."""
    for handlers in (traces.handlers(reader), metrics.handlers(reader)):
        for query_type, handler in handlers.items():
            bus.register(query_type, handler)
