"""The aggregate: which changes of a product's stock are allowed, and the state after each."""

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
    """A product's stock: it never falls below zero, and only paid orders are shipped."""

    topic = ORDERS
    events = (StockReceived, OrderPlaced, OrderPaid, OrderShipped, OrderCancelled)
    commands = (ReceiveStock, PlaceOrder, PayOrder, ShipOrder, CancelOrder)

    @staticmethod
    def initial(aggregate_id: str) -> StockState:
        return StockState()

    @staticmethod
    def decide(state: StockState, command: Any) -> Sequence[Event]:
        header = {"aggregate_id": command.aggregate_id, "occurred_at": command.timestamp, "source": command.source}
        match command:
            case ReceiveStock(quantity=quantity):
                _refuse_unless(quantity > 0, f"{quantity} pieces can't be received: the quantity must be positive")
                return [StockReceived(quantity=quantity, **header)]
            case PlaceOrder():
                return _place(state, command, header)
            case PayOrder(order_id=order_id):
                return [OrderPaid(order_id=order_id, **header)] if _may(state, order_id, "paid", "placed") else []
            case ShipOrder(order_id=order_id):
                may = _may(state, order_id, "shipped", "paid")
                return (
                    [OrderShipped(order_id=order_id, quantity=state.orders[order_id].quantity, **header)] if may else []
                )
            case CancelOrder(order_id=order_id):
                may = _may(state, order_id, "cancelled", "placed", "paid")
                return (
                    [OrderCancelled(order_id=order_id, quantity=state.orders[order_id].quantity, **header)]
                    if may
                    else []
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


def _place(state: StockState, command: PlaceOrder, header: Mapping[str, Any]) -> Sequence[Event]:
    """The order, and its payment if it is paid at once: one record, so nobody sees one without the other."""
    quantity, order_id = command.quantity, command.order_id
    _refuse_unless(order_id not in state.orders, f"order {order_id} exists already: give the new one another id")
    _refuse_unless(quantity > 0, f"{quantity} pieces can't be ordered: the quantity must be positive")
    _refuse_unless(quantity <= state.available, f"{quantity} pieces ordered, but only {state.available} available")
    placed = OrderPlaced(order_id=order_id, quantity=quantity, **header)
    return [placed, OrderPaid(order_id=order_id, **header)] if command.paid else [placed]


def _may(state: StockState, order_id: str, status: str, *before: str) -> bool:
    """Whether the order changes to this status; False if it has it already. CommandRefused if it can't."""
    order = state.orders.get(order_id)
    if order is None:
        raise CommandRefused(f"order {order_id} does not exist: place it first")
    _refuse_unless(
        order.status in (status, *before),
        f"order {order_id} is {order.status}; only {' or '.join(before)} orders can be {status}",
    )
    return order.status != status


def _moved(state: StockState, order_id: str, status: str) -> StockState:
    return replace(state, orders={**state.orders, order_id: replace(state.orders[order_id], status=status)})


def _refuse_unless(allowed: bool, why: str) -> None:
    if not allowed:
        raise CommandRefused(why)
