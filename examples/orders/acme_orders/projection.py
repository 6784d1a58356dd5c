"""The projection `orders`: the view `stock`, one row a product. Its columns are sums, so they come out the same in any order."""

from collections.abc import Sequence
from typing import Any

from psycopg import Cursor, sql
from sqlalchemy import BigInteger, Column, MetaData, Table, Text

from acme_orders.events import ORDERS
from spanfold.postgres.copying import CopyTarget
from spanfold.projections.facts import Fact
from spanfold.projections.projection import View

COUNTED = ("received", "placed", "cancelled", "shipped", "orders", "orders_paid", "orders_shipped", "orders_cancelled")

TABLE = Table(
    "stock",
    MetaData(),
    Column("product_id", Text(collation="C"), primary_key=True),
    *(Column(name, BigInteger, nullable=False) for name in COUNTED),
)

VIEW = View(
    name="stock",
    comment="Each product's stock and orders.",
    select="""
        SELECT product_id, received - shipped AS on_hand, received - placed + cancelled AS available,
               orders, orders_paid, orders_shipped, orders_cancelled
          FROM {schema}.stock""",
    comments={
        "product_id": "The product.",
        "on_hand": "Pieces in the warehouse.",
        "available": "Those of them that no order has taken.",
        "orders": "Orders that were placed.",
        "orders_paid": "Those that were paid.",
        "orders_shipped": "Those that were shipped.",
        "orders_cancelled": "Those that were cancelled.",
    },
)

ADDS = {
    "StockReceived": ("received", ""),
    "OrderPlaced": ("placed", "orders"),
    "OrderPaid": ("", "orders_paid"),
    "OrderShipped": ("shipped", "orders_shipped"),
    "OrderCancelled": ("cancelled", "orders_cancelled"),
}
"""By event: what its quantity is added to, and what it counts in."""

Partial = dict[str, list[int]]
"""By product: COUNTED."""


class Orders:
    """See spanfold.projections.projection.Projection."""

    name = "orders"
    fold_version = 1
    topics = (ORDERS,)
    metadata = TABLE.metadata
    views = (VIEW,)

    def fold(self, facts: Sequence[Fact]) -> Partial:
        partial: Partial = {}
        for _offset, event_type, fields in facts:
            pieces, count = ADDS[event_type]
            sums = [(fields["quantity"] if name == pieces else 0) + (name == count) for name in COUNTED]
            _add(partial, fields["aggregate_id"], sums)
        return partial

    def combine(self, one: Partial, other: Partial) -> Partial:
        both = dict(one)
        for product_id, sums in other.items():
            _add(both, product_id, sums)
        return both

    def merge(self, cursor: Cursor[Any], schema: str, partial: Partial, partition: int) -> None:
        rows = ((product_id, *sums) for product_id, sums in partial.items())
        incoming = CopyTarget(TABLE).copy_incoming(cursor, schema, rows)
        cursor.execute(sql.SQL(MERGE).format(table=sql.Identifier(schema, TABLE.name), incoming=incoming))


def _add(partial: Partial, product_id: str, sums: Sequence[int]) -> None:
    before = partial.get(product_id, [0] * len(COUNTED))
    partial[product_id] = [a + b for a, b in zip(before, sums, strict=True)]


MERGE = f"""
INSERT INTO {{table}} AS t
SELECT * FROM {{incoming}}
ON CONFLICT (product_id) DO UPDATE SET
    {", ".join(f"{name} = t.{name} + excluded.{name}" for name in COUNTED)}
"""

PROJECTION = Orders()
