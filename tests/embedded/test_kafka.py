"""How a broker is configured."""

import uuid
from pathlib import Path

import pytest

from spanfold.embedded.jar_cache import fetch_jars, jar_cache
from spanfold.embedded.jars import locked_jars
from spanfold.embedded.java import find_java
from spanfold.embedded.kafka import BROKER_SETTINGS, KafkaNode, broker_config, kafka_program, properties


def test_every_node_of_a_cluster_names_all_voters() -> None:
    nodes = [KafkaNode(i, 20000 + i, 21000 + i, Path(f"/data/{i}")) for i in (1, 2, 3)]
    configs = [broker_config(node, nodes) for node in nodes]
    voters = "1@127.0.0.1:21001,2@127.0.0.1:21002,3@127.0.0.1:21003"
    assert {config["controller.quorum.voters"] for config in configs} == {voters}
    assert [config["node.id"] for config in configs] == ["1", "2", "3"]
    assert configs[1]["listeners"] == "PLAINTEXT://127.0.0.1:20002,CONTROLLER://127.0.0.1:21002"
    assert all(BROKER_SETTINGS.items() <= config.items() for config in configs)


def test_a_path_in_any_script_survives_a_properties_file() -> None:
    assert properties({"log.dirs": "/home/jürgen/データ"}) == "log.dirs=/home/j\\u00fcrgen/\\u30c7\\u30fc\\u30bf\n"


def test_a_cluster_id_may_begin_with_a_dash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uuid.uuid4", lambda: uuid.UUID(int=0xFB << 120))
    jars = locked_jars()
    fetch_jars(jars, jar_cache())
    node = KafkaNode(1, 20001, 21001, tmp_path)
    kafka_program(node, find_java(), [jar_cache() / jar.filename for jar in jars], tmp_path)
    assert "cluster.id=-w" in (tmp_path / "data" / "meta.properties").read_text()
