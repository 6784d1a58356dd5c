"""The aggregate: what may happen to a product's stock, and what it is after that."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, assert_never

from acme_orders.events import ORDERS, Event, OrderCancelled, OrderPaid, OrderPlaced, OrderShipped, StockReceived
from spanfold.application.aggregates import Aggregate
from spanfold.application.messages import DomainCommand
from spanfold.language.errors import CommandRefused


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiveStock(DomainCommand):
    quantity: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceOrder(DomainCommand):
    order_id: str
    quantity: int
    paid: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PayOrder(DomainCommand):
    order_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ShipOrder(DomainCommand):
    order_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelOrder(DomainCommand):
    order_id: str


@dataclass(frozen=True, slots=True)
class Order:
    """`status` is placed, paid, shipped or cancelled."""

    quantity: int
    status: str = "placed"


@dataclass(frozen=True, slots=True)
class StockState:
    """`available` is what no order has taken yet."""

    available: int = 0
    orders: Mapping[str, Order] = field(default_factory=dict)


class Stock(Aggregate[StockState]):
    """A product's stock: it never falls below zero, and what is shipped has been paid."""

    topic = ORDERS
    events = (StockReceived, OrderPlaced, OrderPaid, OrderShipped, OrderCancelled)
    commands = (ReceiveStock, PlaceOrder, PayOrder, ShipOrder, CancelOrder)

    @staticmethod
    def initial(aggregate_id: str) -> StockState:
        return StockState()

    @staticmethod
    def decide(state: StockState, command: Any) -> Sequence[Event]:
        said = {"aggregate_id": command.aggregate_id, "occurred_at": command.timestamp, "source": command.source}
        match command:
            case ReceiveStock(quantity=quantity):
                _refuse_unless(quantity > 0, f"{quantity} pieces can't be received: say how many there are")
                return [StockReceived(quantity=quantity, **said)]
            case PlaceOrder():
                return _place(state, command, said)
            case PayOrder(order_id=order_id):
                return [OrderPaid(order_id=order_id, **said)] if _may(state, order_id, "paid", "placed") else []
            case ShipOrder(order_id=order_id):
                may = _may(state, order_id, "shipped", "paid")
                return (
                    [OrderShipped(order_id=order_id, quantity=state.orders[order_id].quantity, **said)] if may else []
                )
            case CancelOrder(order_id=order_id):
                may = _may(state, order_id, "cancelled", "placed", "paid")
                return (
                    [OrderCancelled(order_id=order_id, quantity=state.orders[order_id].quantity, **said)] if may else []
                )
            case unknown:
                assert_never(unknown)

    @staticmethod
    def evolve(state: StockState, event: Event) -> StockState:
        match event:
            case StockReceived(quantity=quantity):
                return replace(state, available=state.available + quantity)
            case OrderPlaced(order_id=order_id, quantity=quantity):
                placed = {**state.orders, order_id: Order(quantity)}
                return StockState(state.available - quantity, placed)
            case OrderPaid(order_id=order_id):
                return _moved(state, order_id, "paid")
            case OrderShipped(order_id=order_id):
                return _moved(state, order_id, "shipped")
            case OrderCancelled(order_id=order_id, quantity=quantity):
                return replace(_moved(state, order_id, "cancelled"), available=state.available + quantity)

    @staticmethod
    def as_plain(state: StockState) -> Mapping[str, Any]:
        return asdict(state)

    @staticmethod
    def from_plain(plain: Mapping[str, Any]) -> StockState:
        return StockState(plain["available"], {name: Order(**order) for name, order in plain["orders"].items()})


def _place(state: StockState, command: PlaceOrder, said: Mapping[str, Any]) -> Sequence[Event]:
    """The order, and its payment where it came with it: one record, so nobody sees the one without the other."""
    quantity, order_id = command.quantity, command.order_id
    _refuse_unless(order_id not in state.orders, f"there is an order {order_id}: give the new one an id of its own")
    _refuse_unless(quantity > 0, f"{quantity} pieces can't be ordered")
    _refuse_unless(quantity <= state.available, f"{quantity} pieces are ordered, {state.available} are available")
    placed = OrderPlaced(order_id=order_id, quantity=quantity, **said)
    return [placed, OrderPaid(order_id=order_id, **said)] if command.paid else [placed]


def _may(state: StockState, order_id: str, status: str, *before: str) -> bool:
    """Whether the order is to become so; False when it is so already. CommandRefused when it can't."""
    order = state.orders.get(order_id)
    if order is None:
        raise CommandRefused(f"there is no order {order_id}: place it first")
    _refuse_unless(
        order.status in (status, *before), f"order {order_id} is {order.status}: only {' or '.join(before)} is {status}"
    )
    return order.status != status


def _moved(state: StockState, order_id: str, status: str) -> StockState:
    return replace(state, orders={**state.orders, order_id: replace(state.orders[order_id], status=status)})


def _refuse_unless(allowed: bool, why: str) -> None:
    if not allowed:
        raise CommandRefused(why)
