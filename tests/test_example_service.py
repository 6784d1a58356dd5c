"""The example of a service of one's own, on the real stack, as docs/your-own-service.md tells it."""

import ast
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, TopicPartition

from spanfold.kafka.log_ends import bounds_of
from spanfold.language.settings import Settings
from tests.support import processes
from tests.support.api import api_process
from tests.support.commands import environment
from tests.support.databases import Ledger
from tests.support.waiting import until
from tests.support.workers import Start, Worker, folded

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "your-own-service.md"
PIECES = 60


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the example is installed into; no process sees it but those whose PYTHONPATH names it."""
    folder = tmp_path_factory.mktemp("orders")
    source = folder / "source"
    shutil.copytree(ROOT / "examples" / "orders", source)
    target = folder / "target"
    argv = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--target"]
    subprocess.run([*argv, str(target), str(source)], check=True, timeout=120)
    return target


@pytest.fixture
def surroundings(installed: Path, stack_settings: Settings, tmp_path: Path) -> dict[str, str]:
    """The environment of a process that has the example."""
    return environment(stack_settings) | {"PYTHONPATH": str(installed), "SPANFOLD_HOME": str(tmp_path / "home")}


def run(line: str, surroundings: Mapping[str, str], exit_code: int = 0) -> str:
    """What the command of this line said."""
    program, *words = shlex.split(line)
    if program == "spanfold":
        done = processes.run([*processes.SPANFOLD, *words], surroundings, cwd=ROOT)
    else:
        argv = [sys.executable if program == "python" else program, *words]
        done = subprocess.run(argv, env=dict(surroundings), cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert done.returncode == exit_code, (line, done.stdout, done.stderr)
    return done.stdout


def test_the_catalogue_holds_every_schema(installed: Path) -> None:
    before = (installed / "acme_orders" / "catalogue.json").read_text()
    line = "python -m spanfold.schemas.catalogue acme_orders --first-id 1450000000"
    assert line in PAGE.read_text()
    assert run(line, os.environ | {"PYTHONPATH": str(installed)}) == "0 added\n"
    assert (installed / "acme_orders" / "catalogue.json").read_text() == before


def test_the_python_on_the_page_says_what_it_says_there(installed: Path) -> None:
    (code,) = blocks("python")
    program = (
        "import ast, asyncio, sys\n"
        "code = compile(sys.stdin.read(), 'page', 'exec', flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)\n"
        "asyncio.run(eval(code))"
    )
    assert ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    done = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | {"PYTHONPATH": str(installed)}, input=code,
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == re.findall(r"# (.*)$", code, re.MULTILINE)


@pytest.mark.timeout(900)
def test_eight_clients_at_once_keep_the_rules_and_the_tables_are_what_the_log_says(
    stack_settings: Settings, ledger: Ledger, start: Start, installed: Path, surroundings: dict[str, str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    install, catalogue, migrate, worker_line, api_line, received, refused, clients, sql, verify, rebuild = lines
    assert install == "pip install -e examples/orders"
    assert catalogue.startswith("python -m spanfold.schemas.catalogue")

    done = run(migrate, surroundings)
    assert "acme.orders" in done
    assert "created generation 1 of projection orders" in done
    monkeypatch.setenv("PYTHONPATH", str(installed))
    assert worker_line == "spanfold worker projector"
    worker = start()

    assert api_line == "spanfold api"
    with api_process(stack_settings, tmp_path) as url:

        def typed(line: str) -> Any:
            return json.loads(run(line.replace("localhost:4380", url), surroundings))

        assert typed(received)["version"] == 1
        problem = typed(refused)
        assert (problem["status"], problem["detail"]) == (409, "3 pieces ordered, but only 2 available")

    counts = json.loads(run(clients, surroundings))
    print("clients:", counts)
    assert counts["conflicts"] > 20, counts
    assert min(counts[f"{step} refused"] for step in ("PlaceOrder", "ShipOrder")) > 0, counts
    events = logged(stack_settings, installed)
    keeps_the_rules(events)
    kinds = Counter(kind for kind, _, _ in events)
    # a client's step that was so already has added no event; what came over HTTP is one receipt more
    assert kinds["OrderPlaced"] == counts["PlaceOrder"]
    assert kinds["OrderShipped"] <= counts["ShipOrder"]
    assert kinds["StockReceived"] == 3

    orders_are_folded(ledger, worker, events)
    assert shown(ledger) == reference(events)
    assert "tea" in run(sql, surroundings)
    assert re.search(r"stock: \d+ rows, equal", run(verify, surroundings))
    assert "rebuilt orders: " in run(rebuild, surroundings)
    folded(ledger, stack_settings, worker)
    assert shown(ledger) == reference(events)


Event = tuple[str, str, Mapping[str, Any]]
"""Event type, product, its own fields."""


def logged(settings: Settings, installed: Path) -> list[Event]:
    """The accepted events in the order of the log, read with the example's own schemas and nothing of spanfold's folds: the first
    record that expects the version which its product has is the one that counts.
    """
    program = (
        "import json, sys\n"
        "from spanfold.schemas.batches import unpack\n"
        "from spanfold.schemas.codec import Codec\n"
        "codec = Codec()\n"
        "for line in sys.stdin:\n"
        "    kind, fields = codec.decode(bytes.fromhex(line))\n"
        "    facts = unpack(fields, codec) if kind == 'EventBatch' else [(kind, fields)]\n"
        "    print(json.dumps([[kind, {n: v for n, v in said.items() if n != 'event_id'}] for kind, said in facts]))\n"
    )
    values = accepted(settings)
    done = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | {"PYTHONPATH": str(installed)},
        input="\n".join(value.hex() for value in values), capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    return [(kind, said["aggregate_id"], said) for line in done.stdout.splitlines() for kind, said in json.loads(line)]


def accepted(settings: Settings) -> list[bytes]:
    """The values of the records that won, partition by partition."""
    consumer = Consumer({"bootstrap.servers": settings.kafka_bootstrap, "group.id": "test"})
    topic, values = f"{settings.topic_prefix}acme.orders", []
    versions: Counter[str] = Counter()
    seen: set[str] = set()
    for partition in consumer.list_topics(topic, timeout=10).topics[topic].partitions:
        _, end = bounds_of(consumer, topic, partition)
        consumer.assign([TopicPartition(topic, partition, 0)])
        at = 0
        while at < end:
            message = consumer.poll(10)
            assert message
            assert not message.error()
            at = (message.offset() or 0) + 1
            named: Any = message.headers() or []
            headers = {name: value.decode() for name, value in named}
            key, expected = bytes(message.key() or b"").decode(), headers.get("expected_version")
            if headers["event_id"] not in seen and expected in (None, str(versions[key])):
                versions[key] += 1
                values.append(message.value() or b"")
            seen.add(headers["event_id"])
    consumer.close()
    return values


def keeps_the_rules(events: list[Event]) -> None:
    available: Counter[str] = Counter()
    status: dict[tuple[str, str], str] = {}
    before = {"OrderPaid": ("placed",), "OrderShipped": ("paid",), "OrderCancelled": ("placed", "paid")}
    for kind, product, said in events:
        order = (product, said.get("order_id", ""))
        if kind in ("StockReceived", "OrderCancelled"):
            available[product] += said["quantity"]
        if kind == "OrderPlaced":
            assert order not in status
            available[product] -= said["quantity"]
        elif kind != "StockReceived":
            assert status[order] in before[kind], (kind, order, status[order])
        assert available[product] >= 0, (kind, said)
        status[order] = kind.removeprefix("Order").lower()


def reference(events: list[Event]) -> dict[str, tuple[int, ...]]:
    """The rows of the view `stock`, one event after the other."""
    rows: dict[str, Counter[str]] = {}
    for kind, product, said in events:
        row = rows.setdefault(product, Counter())
        row[kind] += 1
        row[f"pieces {kind}"] += said.get("quantity", 0)
    return {
        product: (
            row["pieces StockReceived"] - row["pieces OrderShipped"],
            row["pieces StockReceived"] - row["pieces OrderPlaced"] + row["pieces OrderCancelled"],
            row["OrderPlaced"], row["OrderPaid"], row["OrderShipped"], row["OrderCancelled"],
        )
        for product, row in rows.items()
    }  # fmt: skip


def shown(ledger: Ledger) -> dict[str, tuple[int, ...]]:
    return {product: tuple(row) for product, *row in ledger.execute("SELECT * FROM spanfold.stock")}


def orders_are_folded(ledger: Ledger, worker: Worker, events: list[Event]) -> None:
    until(lambda: shown(ledger) == reference(events), "the rows of stock", lambda: (shown(ledger), worker.output()))
