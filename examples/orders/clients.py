"""Clients that order at random from the same few products, all at the same time. Says how it went, as JSON.

python examples/orders/clients.py --clients 8 --orders 25
"""

import argparse
import asyncio
import json
import random
from collections import Counter
from typing import Any

from acme_orders.stock import CancelOrder, PayOrder, PlaceOrder, ReceiveStock, ShipOrder, Stock

from spanfold.application.buses import CommandBus, Next, retrying
from spanfold.application.event_store import Conflict, EventStore
from spanfold.application.execution import Retry
from spanfold.bootstrap import event_store
from spanfold.language.errors import CommandRefused
from spanfold.language.settings import settings

PRODUCTS = ("tea", "coffee")
PIECES = 60


def bus_of(store: EventStore, counts: Counter[str]) -> CommandBus:
    """A bus that tries again after a conflict, and counts them."""

    async def counting(command: Any, forward: Next) -> Any:
        try:
            return await forward(command)
        except Conflict:
            counts["conflicts"] += 1
            raise

    bus = CommandBus(retrying(Retry(attempts=50)), counting)
    bus.register_aggregate(Stock, store)
    return bus


async def client(bus: CommandBus, number: int, orders: int, counts: Counter[str]) -> None:
    """Order, pay, ship and cancel; a step may be missing, so some of what follows is refused."""
    rng = random.Random(number)  # noqa: S311  # a load, not a secret
    for each in range(orders):
        order = {"aggregate_id": rng.choice(PRODUCTS), "order_id": f"{number}-{each}", "source": f"client {number}"}
        steps: list[Any] = [PlaceOrder(quantity=rng.randint(1, 3), paid=rng.random() < 0.3, **order)]
        steps += [wish(**order) for wish in (PayOrder, ShipOrder, CancelOrder) if rng.random() < 0.5]
        for command in steps:
            name = type(command).__name__
            try:
                await bus.send(command)
                counts[name] += 1
            except CommandRefused:
                counts[f"{name} refused"] += 1


async def main(clients: int, orders: int) -> Counter[str]:
    counts: Counter[str] = Counter()
    async with event_store(settings()) as store:
        bus = bus_of(store, counts)
        for product in PRODUCTS:
            await bus.send(ReceiveStock(aggregate_id=product, quantity=PIECES))
        await asyncio.gather(*(client(bus, number, orders, counts) for number in range(clients)))
    return counts


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--orders", type=int, default=25, help="orders of each client")
    given = parser.parse_args()
    print(json.dumps(asyncio.run(main(given.clients, given.orders))))
