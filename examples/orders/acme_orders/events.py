"""What can happen to a product's stock and its orders. The aggregate's id is the product's."""

from dataclasses import dataclass

from spanfold.language.events import DomainEvent
from spanfold.language.topics import Topic, TopicKind

ORDERS = Topic(
    name="acme.orders",
    kind=TopicKind.CONDITIONAL,
    event_types=("StockReceived", "OrderPlaced", "OrderPaid", "OrderShipped", "OrderCancelled"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StockReceived(DomainEvent):
    home = ORDERS
    quantity: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderPlaced(DomainEvent):
    home = ORDERS
    order_id: str
    quantity: int

    def identity(self) -> tuple[str, ...]:
        return (self.order_id,)


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderPaid(DomainEvent):
    home = ORDERS
    order_id: str

    def identity(self) -> tuple[str, ...]:
        return (self.order_id,)


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderShipped(DomainEvent):
    home = ORDERS
    order_id: str
    quantity: int

    def identity(self) -> tuple[str, ...]:
        return (self.order_id,)


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderCancelled(DomainEvent):
    home = ORDERS
    order_id: str
    quantity: int

    def identity(self) -> tuple[str, ...]:
        return (self.order_id,)


Event = StockReceived | OrderPlaced | OrderPaid | OrderShipped | OrderCancelled
