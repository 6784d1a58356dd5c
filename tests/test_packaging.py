"""What is built, what `pip install spanfold` brings, and what it takes from a service that publishes: hardly anything."""

import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import Distribution, distribution, files
from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from spanfold.kafka.client import kafka_config
from spanfold.kafka.topics import ensure_topics
from spanfold.language import extras
from spanfold.language.errors import Misconfigured
from spanfold.language.settings import Settings
from spanfold.language.topics import TRACES
from spanfold.schemas.catalogue import committed
from spanfold.schemas.codec import Codec

ROOT = Path(__file__).parent.parent
ROOMS = ("schemas", "migrations", "producers", "stream_processors", "projections")
MB = 1_000_000

SERVER_ONLY = {
    "aiokafka", "alembic", "fastapi", "faust", "httpx", "mode", "numpy", "prometheus_client", "psycopg", "rich",
    "sqlalchemy", "starlette", "structlog", "tenacity", "typer", "uvicorn",
}  # fmt: skip
"""Modules that a service which only publishes must not have to import, not even where they are installed."""


# What is built


def build(source: Path, target: str, folder: Path) -> Path:
    """The wheel or the sdist of the sources in this folder."""
    argv = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(folder)]
    subprocess.run(argv, cwd=source, check=True, timeout=120)
    (built,) = folder.iterdir()
    return built


@pytest.fixture(scope="module")
def wheel_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that this checkout builds."""
    return build(ROOT, "wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def wheel(wheel_file: Path) -> Iterator[zipfile.ZipFile]:
    with zipfile.ZipFile(wheel_file) as opened:
        yield opened


def contents(wheel: zipfile.ZipFile) -> dict[str, bytes]:
    return {name: wheel.read(name) for name in wheel.namelist()}


def test_a_wheel_holds_the_rooms_and_nothing_beside_them(wheel: zipfile.ZipFile) -> None:
    tops = {name.partition("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"spanfold"}
    assert {name.split("/")[1] for name in wheel.namelist() if name.count("/") > 1} >= set(ROOMS)


def test_a_wheel_holds_every_schema_and_every_migration(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    assert {f"spanfold/schemas/avro/{entry.file}" for entry in committed()} <= names
    assert "spanfold/schemas/catalogue.json" in names
    versions = ROOT / "migrations" / "versions"
    revisions = {f"spanfold/{path.relative_to(ROOT)}" for path in versions.glob("*.py")}
    statements = {f"spanfold/{path.relative_to(ROOT)}" for path in versions.glob("*/*.sql")}
    assert revisions
    assert statements
    assert revisions | statements <= names
    assert {"spanfold/migrations/env.py", "spanfold/migrations/__init__.py"} <= names


def test_a_wheel_holds_every_module(wheel: zipfile.ZipFile) -> None:
    modules = {f"spanfold/{path.relative_to(ROOT)}" for room in ROOMS for path in (ROOT / room).rglob("*.py")}
    assert modules <= set(wheel.namelist())


def test_a_wheel_offers_the_command_and_the_projections(wheel: zipfile.ZipFile) -> None:
    (entry_points,) = (name for name in wheel.namelist() if name.endswith(".dist-info/entry_points.txt"))
    text = wheel.read(entry_points).decode()
    assert "spanfold = spanfold.cli:main" in text
    assert "[spanfold.projections]" in text
    assert "traces = spanfold.projections.traces:PROJECTION" in text


def test_what_is_unpacked_from_a_wheel_runs_without_the_checkout(wheel_file: Path, tmp_path: Path) -> None:
    shutil.unpack_archive(wheel_file, tmp_path, "zip")
    program = """
import sys
sys.path.insert(0, sys.argv[1])
from spanfold import migrations
from spanfold.schemas import catalogue
from spanfold.stream_processors.worker import process
assert catalogue.__file__.startswith(sys.argv[1]), catalogue.__file__
for entry in catalogue.committed():
    assert catalogue.fingerprint_of(entry.load()) == entry.fingerprint
from alembic.script import ScriptDirectory
assert ScriptDirectory.from_config(migrations.alembic_config()).get_heads()
"""
    subprocess.run([sys.executable, "-P", "-c", program, tmp_path], cwd=tmp_path, check=True, timeout=60)


def test_the_wheel_from_the_sdist_is_the_wheel_from_the_tree(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    shutil.unpack_archive(build(ROOT, "sdist", tmp_path / "sdist"), tmp_path / "unpacked", filter="data")
    (sources,) = (tmp_path / "unpacked").iterdir()
    assert [room for room in ROOMS if (sources / room).exists()] == []  # each file once, within spanfold/
    with zipfile.ZipFile(build(sources, "wheel", tmp_path / "again")) as again:
        assert contents(again) == contents(wheel)


def test_the_package_says_that_it_is_typed(wheel: zipfile.ZipFile) -> None:
    assert "spanfold/py.typed" in wheel.namelist()


# Installed for a service that publishes


@dataclass(frozen=True)
class Service:
    """A virtual environment with the wheel and what its core requires, and nothing else."""

    folder: Path

    @property
    def site_packages(self) -> Path:
        (found,) = self.folder.glob("lib/python*/site-packages")
        return found

    def run(
        self, program: str, *words: str, cwd: Path | None = None, environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """One of the programs of the environment."""
        argv = [str(self.folder / "bin" / program), *words]
        return subprocess.run(argv, capture_output=True, text=True, timeout=60, cwd=cwd, env=environment or {})


def required(name: str, extras: frozenset[str] = frozenset()) -> dict[str, Distribution]:
    """The distribution and all that it requires, by canonical name, from what is installed here."""
    root = distribution(name)
    found: dict[str, Distribution] = {canonicalize_name(name): root}
    for requirement in map(Requirement, root.requires or []):
        marker = requirement.marker
        applies = marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras))
        if applies and canonicalize_name(requirement.name) not in found:
            found |= required(requirement.name, frozenset(requirement.extras))
    return found


def core_requirements(wheel: zipfile.ZipFile) -> dict[str, Distribution]:
    """What pip brings along with the wheel when no extra is named."""
    (metadata,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    lines = wheel.read(metadata).decode().split("\n\n")[0].splitlines()
    requirements = [Requirement(line.partition(": ")[2]) for line in lines if line.startswith("Requires-Dist: ")]
    found: dict[str, Distribution] = {}
    for requirement in requirements:
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            found |= required(requirement.name, frozenset(requirement.extras))
    return found


@pytest.fixture(scope="module")
def service(wheel_file: Path, wheel: zipfile.ZipFile, tmp_path_factory: pytest.TempPathFactory) -> Service:
    made = Service(tmp_path_factory.mktemp("service"))
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", made.folder], check=True, timeout=60)
    python = made.folder / "bin" / "python"
    install = ["install", "--quiet", "--no-deps", "--no-index", "--disable-pip-version-check", str(wheel_file)]
    subprocess.run([sys.executable, "-m", "pip", "--python", str(python), *install], check=True, timeout=120)
    for each in core_requirements(wheel).values():
        for top in {path.parts[0] for path in each.files or () if path.parts[0] != ".."}:
            (made.site_packages / top).symlink_to(Path(str(each.locate_file(top))))
    return made


def test_the_core_is_small(wheel: zipfile.ZipFile) -> None:
    brought = core_requirements(wheel)
    assert {"confluent-kafka", "fastavro", "pydantic-settings"} <= brought.keys()
    assert len(brought) + 1 <= 20, sorted(brought)
    assert f"services that publish events: {len(brought) + 1} packages" in (ROOT / "README.md").read_text()
    sizes = [Path(str(path.locate())).stat().st_size for each in brought.values() for path in each.files or ()]
    assert sum(sizes) + sum(entry.file_size for entry in wheel.infolist()) <= 80 * MB


PUBLISH = """
import importlib, json, sys
from spanfold.language.events import TraceCreated
from spanfold.producers.publisher import TelemetryPublisher
from spanfold.schemas.codec import Codec

now = int(sys.argv[1])
event = TraceCreated(
    aggregate_id="order-4711", occurred_at=now, source="checkout", service_name="checkout",
    operation_name="place order", start_time=now, tags={"customer": "c-12"},
)
with TelemetryPublisher(sys.argv[2]) as publisher:
    delivery = publisher.publish_and_wait(event)
read = Codec().decode(Codec().encode(event.event_type, event.as_fields()))
print(json.dumps({
    "theirs": [importlib.import_module(room).OWNER for room in sys.argv[3:]],
    "ours": sys.modules["spanfold"].__file__,
    "read": read[0],
    "partition": delivery.partition, "offset": delivery.offset,
}))
"""


def test_a_service_with_rooms_of_the_same_names_publishes(
    service: Service, kafka_bootstrap: str, topic_prefix: str, tmp_path: Path
) -> None:
    settings = Settings(kafka_bootstrap=kafka_bootstrap, topic_prefix=topic_prefix)
    topic = ensure_topics(settings, [TRACES])[TRACES.name]
    for room in ROOMS:
        (tmp_path / room).mkdir()
        (tmp_path / room / "__init__.py").write_text(f"OWNER = 'the {room} of the service'\n")
    (tmp_path / "checkout.py").write_text(PUBLISH)
    now = 1_795_000_000_000_000
    environment = {"SPANFOLD_TOPIC_PREFIX": topic_prefix}
    done = service.run(
        "python", "checkout.py", str(now), kafka_bootstrap, *ROOMS, cwd=tmp_path, environment=environment
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["theirs"] == [f"the {room} of the service" for room in ROOMS]
    assert answer["ours"].startswith(str(service.site_packages))
    assert answer["read"] == "TraceCreated"
    event_type, fields = Codec().decode(record_at(settings, topic.name, answer["partition"], answer["offset"]))
    assert (event_type, fields["aggregate_id"], fields["start_time"]) == ("TraceCreated", "order-4711", now)
    assert fields["tags"] == '{"customer":"c-12"}'


def record_at(settings: Settings, topic: str, partition: int, offset: int) -> bytes | None:
    consumer = Consumer(kafka_config(settings) | {"group.id": "test"})
    consumer.assign([TopicPartition(topic, partition, offset)])
    (message,) = consumer.consume(1, 20)
    consumer.close()
    return message.value()


@pytest.mark.parametrize("words", [["spanfold", "status"], ["spanfold"], ["python", "-m", "spanfold", "up"]])
def test_without_the_server_extra_the_command_says_what_to_install(service: Service, words: list[str]) -> None:
    done = service.run(*words)
    assert (done.returncode, done.stdout) == (3, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(
        "spanfold: the command `spanfold` needs packages that are not installed (aiokafka, alembic, "
    )
    assert line.endswith("pip install 'spanfold[server]'")
    assert f"$ spanfold status\n{line}\n" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("module", ["opentelemetry", "opentelemetry.logs", "log_handler"])
def test_without_the_otel_extra_its_modules_say_what_to_install(service: Service, module: str) -> None:
    done = service.run("python", "-c", f"import spanfold.producers.{module}")
    assert done.returncode == 1
    needs_it = f"spanfold.producers.{module.partition('.')[0]} needs the extra otel: pip install 'spanfold[otel]'"
    assert done.stderr.splitlines()[-1] == f"ImportError: {needs_it} (No module named 'opentelemetry')"


# Imported


def modules_after(statement: str) -> set[str]:
    """The modules that a fresh interpreter of this environment has loaded after the statement."""
    program = f"{statement}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, timeout=60)
    return set(json.loads(done.stdout))


@pytest.mark.parametrize("module", ["publisher", "event_sink", "opentelemetry", "opentelemetry.logs", "log_handler"])
def test_importing_a_producer_loads_nothing_of_a_server(module: str) -> None:
    loaded = modules_after(f"import spanfold.producers.{module}")
    assert f"spanfold.producers.{module}" in loaded
    assert {name.partition(".")[0] for name in loaded} & SERVER_ONLY == set()


def test_making_a_publisher_loads_nothing_of_a_server() -> None:
    loaded = modules_after(
        "from spanfold.producers.publisher import TelemetryPublisher\nTelemetryPublisher('127.0.0.1:1').close(0)"
    )
    assert {name.partition(".")[0] for name in loaded} & SERVER_ONLY == set()
    assert "spanfold.application.aggregates" not in loaded


def test_importing_the_publisher_parses_no_settings_and_looks_for_no_packages() -> None:
    loaded = modules_after("import spanfold.producers.publisher")
    assert loaded.isdisjoint({"pydantic", "importlib.metadata", "importlib.resources"})


def test_the_installed_package_names_its_own_files() -> None:
    assert files("spanfold")


def test_what_is_missing_of_an_extra_is_named_with_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    requirements = [
        "rich>=1",
        "nothing-of-it>=1; extra == 'demo'",
        "rich>=1; extra == 'demo'",
        "nor-of-this; extra == 'demo'",
        "nor-of-this; extra == 'embedded'",
        "nor-of-that; extra == 'otel'",
    ]
    monkeypatch.setattr(extras, "requires", lambda _: requirements)
    with pytest.raises(Misconfigured) as refused:
        extras.check_installed("demo", "the shop", besides="embedded")
    assert str(refused.value) == (
        "the shop needs packages that are not installed (nothing-of-it): pip install 'spanfold[demo]'"
    )
