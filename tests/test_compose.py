"""docker-compose.yml runs the same parts, with the same settings, as the embedded stack."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from spanfold.embedded.jars import locked_jars
from spanfold.embedded.kafka import BROKER_SETTINGS, HEAP
from spanfold.embedded.postgres import INITDB_OPTIONS, MAJOR, NAME, POSTGRES_SETTINGS, wheel_folder

Service = dict[str, Any]


@pytest.fixture(scope="module")
def services() -> dict[str, Service]:
    path = Path(__file__).parents[1] / "docker-compose.yml"
    document: dict[str, dict[str, Service]] = yaml.safe_load(path.read_text())
    return document["services"]


def test_kafka_is_the_locked_version(services: dict[str, Service]) -> None:
    [locked] = [jar for jar in locked_jars() if jar.coordinate.startswith("org.apache.kafka:kafka_2.13:")]
    assert services["kafka"]["image"] == f"apache/kafka:{locked.coordinate.rpartition(':')[2]}"


def test_postgres_is_the_major_version_of_the_wheel(services: dict[str, Service]) -> None:
    assert services["postgres"]["image"] == f"postgres:{MAJOR}"
    assert (wheel_folder() / "bin" / "postgres").is_file()


def test_the_broker_has_the_settings_of_the_embedded_one(services: dict[str, Service]) -> None:
    environment = services["kafka"]["environment"]
    named = {f"KAFKA_{name.upper().replace('.', '_')}": value for name, value in BROKER_SETTINGS.items()}
    assert named.items() <= environment.items()
    assert environment["KAFKA_HEAP_OPTS"].split() == list(HEAP)
    place = set(environment) - set(named) - {"KAFKA_HEAP_OPTS"}
    assert place == {
        "KAFKA_NODE_ID",
        "KAFKA_PROCESS_ROLES",
        "KAFKA_CONTROLLER_QUORUM_VOTERS",
        "KAFKA_LISTENERS",
        "KAFKA_ADVERTISED_LISTENERS",
        "KAFKA_CONTROLLER_LISTENER_NAMES",
        "KAFKA_INTER_BROKER_LISTENER_NAME",
        "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP",
        "KAFKA_LOG_DIRS",
    }


def test_the_database_has_the_settings_of_the_embedded_one(services: dict[str, Service]) -> None:
    postgres = services["postgres"]
    assert postgres["command"] == ["postgres", *(f"--{name}={value}" for name, value in POSTGRES_SETTINGS.items())]
    assert postgres["environment"]["POSTGRES_INITDB_ARGS"].split() == list(INITDB_OPTIONS)
    assert postgres["environment"]["POSTGRES_USER"] == postgres["environment"]["POSTGRES_DB"] == NAME


@pytest.mark.parametrize(("name", "port"), [("kafka", 9092), ("postgres", 5432)])
def test_a_service_is_healthy_or_not_keeps_its_data_and_is_not_offered_to_the_network(
    services: dict[str, Service], name: str, port: int
) -> None:
    service = services[name]
    assert service["healthcheck"]["test"][0] == "CMD"
    assert service["ports"] == [f"127.0.0.1:{port}:{port}"]
    assert [volume.partition(":")[0] for volume in service["volumes"]] == [name]
