"""The command bus over an event store."""

from spanfold.aggregates import installed_aggregates
from spanfold.buses import CommandBus, Middleware, retrying, validating
from spanfold.event_store import EventStore


def command_bus(store: EventStore, *middleware: Middleware) -> CommandBus:
    """A bus that carries out every command of every installed aggregate, appending to this store. What can't be kept is
    refused, and conflicts are tried again; `middleware` sees each command first.
    """
    bus = CommandBus(*middleware, validating, retrying())
    for aggregate in installed_aggregates().values():
        bus.register_aggregate(aggregate, store)
    return bus
