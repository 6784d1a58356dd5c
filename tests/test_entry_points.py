"""A package of one's own: its topics, schemas and aggregates come in by the door that ours came in by."""

import json
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from spanfold.language.errors import Misconfigured
from spanfold.language.topics import checked_topics, installed_topics
from spanfold.schemas.catalogue import OUR_IDS, Catalogue, RegisteredSchema, committed

MODULE = """
from dataclasses import dataclass, replace

from spanfold.application.aggregates import Aggregate
from spanfold.language.errors import CommandRefused
from spanfold.language.events import DomainEvent
from spanfold.application.messages import DomainCommand
from spanfold.language.topics import Topic, TopicKind

ORDERS = Topic("acme.orders", TopicKind.CONDITIONAL, ("OrderPlaced", "OrderShipped"))


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderPlaced(DomainEvent):
    home = ORDERS
    items: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderShipped(DomainEvent):
    home = ORDERS


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceOrder(DomainCommand):
    items: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ShipOrder(DomainCommand):
    pass


class OrderAggregate(Aggregate[str]):
    topic = ORDERS
    events = (OrderPlaced, OrderShipped)
    commands = (PlaceOrder, ShipOrder)

    @staticmethod
    def initial(aggregate_id):
        return "unknown"

    @staticmethod
    def decide(state, command):
        said = dict(aggregate_id=command.aggregate_id, occurred_at=command.timestamp, source=command.source)
        match command:
            case PlaceOrder():
                return [OrderPlaced(items=command.items, **said)]
            case ShipOrder() if state == "unknown":
                raise CommandRefused("place the order first")
            case ShipOrder():
                return [OrderShipped(**said)]

    @staticmethod
    def evolve(state, event):
        return "placed" if isinstance(event, OrderPlaced) else "shipped"

    @staticmethod
    def as_plain(state):
        return {"state": state}

    @staticmethod
    def from_plain(plain):
        return plain["state"]
"""

ENTRY_POINTS = """
[spanfold.topics]
orders = acme_orders:ORDERS
[spanfold.schemas]
acme = acme_orders
[spanfold.aggregates]
order = acme_orders:OrderAggregate
"""

PROGRAM = """
import asyncio
from spanfold.schemas.catalogue import committed
from spanfold.schemas.codec import Codec
from spanfold.application.aggregates import event_class, installed_aggregates
from spanfold.application.buses import CommandBus
from spanfold.application.in_memory import InMemoryEventStore
from spanfold.application.messages import Command
from spanfold.language.topics import installed_topics, topic_of

print([topic.name for topic in installed_topics()])
assert topic_of("OrderPlaced").name == "acme.orders"
entry = committed().latest("OrderPlaced")
print(entry.id, entry.subject)
aggregate = installed_aggregates()["order"]
OrderPlaced = event_class("OrderPlaced")
placed = OrderPlaced(aggregate_id="o-1", occurred_at=1, source="acme", items=3)
codec = Codec()
assert codec.decode(codec.encode(placed.event_type, placed.as_fields())) == ("OrderPlaced", placed.as_fields())
bus = CommandBus()
bus.register_aggregate(aggregate, InMemoryEventStore())
command = Command(command_type="PlaceOrder", aggregate_id="o-1", command_data={"items": 3})
print(asyncio.run(bus.send(command)).version)
"""


@pytest.fixture
def acme(tmp_path: Path) -> Path:
    """A folder in which the package acme_orders is installed."""
    package = tmp_path / "acme_orders"
    (package / "avro").mkdir(parents=True)
    (package / "__init__.py").write_text(MODULE)
    envelope = committed().latest("RecordRetried").load()["fields"][:4]
    for name, own in (("OrderPlaced", [{"name": "items", "type": "long"}]), ("OrderShipped", [])):
        schema = {"type": "record", "name": name, "namespace": "acme", "fields": [*envelope, *own]}
        (package / "avro" / f"{name}.v1.avsc").write_text(json.dumps(schema))
    metadata = tmp_path / "acme_orders-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-orders\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(ENTRY_POINTS)
    return tmp_path


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {"PYTHONPATH": str(folder)}
    return subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment, check=False, timeout=60, capture_output=True, text=True
    )


def test_a_package_brings_topics_schemas_and_aggregates(acme: Path) -> None:
    made = run(acme, "-m", "spanfold.schemas.catalogue", "acme_orders", "--first-id", "1450000000")
    assert (made.returncode, made.stdout, made.stderr) == (0, "2 added\n", "")
    done = run(acme, "-c", PROGRAM)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "['acme.orders', 'spanfold.logs', 'spanfold.metrics', 'spanfold.services', 'spanfold.traces']",
        "1450000000 acme.orders-acme.OrderPlaced",
        "1",
    ]


def test_a_package_without_a_catalogue_is_told_so(acme: Path) -> None:
    done = run(acme, "-c", "from spanfold.schemas.catalogue import committed; committed()")
    assert "Misconfigured: entry point spanfold.schemas: acme_orders has no catalogue.json" in done.stderr


def test_ids_of_packages_are_not_ours(acme: Path) -> None:
    done = run(acme, "-m", "spanfold.schemas.catalogue", "acme_orders", "--first-id", str(OUR_IDS[7]))
    assert "--first-id of acme_orders must be in the range 1410000000 to 2147483647" in done.stderr
    run(acme, "-m", "spanfold.schemas.catalogue", "acme_orders", "--first-id", "1450000000")
    catalogue = acme / "acme_orders" / "catalogue.json"
    catalogue.write_text(catalogue.read_text().replace("1450000001", "1400000001"))
    done = run(acme, "-c", "from spanfold.schemas.catalogue import committed; committed()")
    assert "the id 1400000001 of OrderShipped.v1.avsc must be in the range 1410000000 to 2147483647" in done.stderr


def entry(package: str, **said: Any) -> RegisteredSchema:
    fields: dict[str, Any] = {
        "id": 1_450_000_000, "subject": "s", "version": 1, "fingerprint": "", "file": "A.v1.avsc", **said
    }  # fmt: skip
    return RegisteredSchema(**fields, package=package)


def test_two_packages_may_not_share_an_id_or_an_event() -> None:
    with pytest.raises(Misconfigured, match=r"1450000000 is used twice: by acme/A.v1.avsc and beta/B.v1.avsc"):
        Catalogue([entry("acme"), entry("beta", file="B.v1.avsc")])
    with pytest.raises(Misconfigured, match="event type A is in acme and in beta: rename one"):
        Catalogue([entry("acme"), entry("beta", id=1_460_000_000)])
    both = Catalogue([entry("acme"), entry("acme", id=1_450_000_001, version=2, file="A.v2.avsc")])
    assert both.latest("A").version == 2


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("tests.other_topics:TRACES", "acme.traces.*the last parts of their names must differ"),
        ("tests.other_topics:SPANS", "both have SpanRecorded"),
        ("tests.other_topics:NO_TOPIC", "must be a Topic, got 'traces'"),
    ],
)
def test_topics_that_collide_are_refused(value: str, said: str) -> None:
    entries = [
        EntryPoint("other", value, "spanfold.topics"),
        EntryPoint("traces", "spanfold.language.topics:TRACES", "spanfold.topics"),
    ]
    with pytest.raises(Misconfigured, match=said):
        checked_topics(entries)


def test_no_topics_at_all_is_an_installation_that_is_out_of_date() -> None:
    with pytest.raises(Misconfigured, match="out of date: reinstall spanfold"):
        checked_topics([])
    assert [topic.short_name for topic in installed_topics()] == ["logs", "metrics", "services", "traces"]
