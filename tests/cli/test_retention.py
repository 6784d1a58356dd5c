"""What the embedded servers keep by default, and how the log is cut by size."""

import json
import random
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from spanfold.embedded.process_identity import Identity
from spanfold.embedded.stack_state import StackState
from spanfold.language.settings import Settings
from spanfold.operations import retention
from spanfold.operations.retention import KEPT_BYTES, KEPT_DAYS, with_default_retention
from tests.cli.shell import Shell
from tests.support.waiting import until

pytestmark = pytest.mark.timeout(300)

MIB = 2**20


def stack_with(*servers: str) -> StackState:
    """A stack that started these servers itself."""
    return StackState(
        home=Path("/srv/spanfold"), kafka_bootstrap="", postgres_dsn="", supervisor=Identity(1, 0.0), started_at="",
        ports=dict.fromkeys(servers, 1),
    )  # fmt: skip


def test_only_servers_of_the_stack_have_defaults() -> None:
    settings = Settings(home=Path("/srv/spanfold"))
    telemetry = dict.fromkeys(("spanfold.traces", "spanfold.metrics", "spanfold.logs"), KEPT_DAYS)
    both = with_default_retention(settings, stack_with("kafka", "postgres"))
    assert both.log_retention_days == telemetry
    assert both.log_retention_bytes == dict.fromkeys(telemetry, KEPT_BYTES)
    assert both.journal_retention_days == {"spanfold.traces": KEPT_DAYS, "spanfold.logs": KEPT_DAYS}
    assert both.table_retention_days == dict.fromkeys(("spans", "metric_points", "logs"), KEPT_DAYS)
    kafka = with_default_retention(settings, stack_with("kafka"))
    assert (kafka.log_retention_days, kafka.table_retention_days) == (telemetry, {})
    assert with_default_retention(settings, stack_with()) == settings
    assert with_default_retention(settings, None) == settings


def test_what_is_set_replaces_the_default_and_nothing_set_keeps_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPANFOLD_LOG_RETENTION_DAYS", "{}")
    monkeypatch.setenv("SPANFOLD_TABLE_RETENTION_DAYS", '{"spans": 7}')
    chosen = with_default_retention(Settings(), stack_with("kafka", "postgres"))
    assert chosen.log_retention_days == {}
    assert chosen.table_retention_days == {"spans": 7}
    assert set(chosen.log_retention_bytes.values()) == {KEPT_BYTES}


def test_a_log_that_is_too_large_is_cut_and_up_has_said_so(shell: Shell) -> None:
    up = shell.json("up", "--detach")
    assert up["retention"]["log_retention_bytes"]["spanfold.traces"] == KEPT_BYTES
    assert shell.json("prune", "--dry-run")["remarks"] == []

    resource = ConfigResource(ResourceType.TOPIC, "spanfold.traces")
    entry = ConfigEntry("segment.bytes", str(MIB), incremental_operation=AlterConfigOpType.SET)
    resource.add_incremental_config(entry)
    admin = AdminClient({"bootstrap.servers": up["kafka_bootstrap"]})
    admin.incremental_alter_configs([resource])[resource].result(30)
    events = "\n".join(json.dumps(trace_created(number)) for number in range(300))
    assert shell("publish", "--wait", stdin=events).returncode == 0

    kept = {"SPANFOLD_LOG_RETENTION_BYTES": json.dumps({"spanfold.traces": MIB})}
    report = shell.json("prune", **kept)
    cut = {
        part["partition"]: part["records"]
        for part in report["parts"]
        if part["name"] == "spanfold.traces" and part["kind"] == "log"
    }
    assert all(cut.values())
    status = shell.json("status")
    begins = {
        part["partition"]: part["log_start"] for part in status["partitions"] if part["topic"] == "spanfold.traces"
    }
    assert begins == cut
    assert status["problems"] == []
    assert shell.json("sql", "SELECT count(*) AS n FROM traces") == [{"n": 300}]


def trace_created(number: int) -> dict[str, object]:
    """An event of about 60 kB."""
    return {
        "event_type": "TraceCreated",
        "aggregate_id": f"trace-{number}",
        "event_data": {
            "service_name": "shop",
            "operation_name": "GET /cart",
            "tags": {"body": random.Random(number).randbytes(30_000).hex()},
        },
    }


def test_the_size_of_another_kafka_is_not_known(shell: Shell, own_servers: dict[str, str]) -> None:
    shell.json("migrate", **own_servers)
    kept = {"SPANFOLD_LOG_RETENTION_BYTES": json.dumps({"spanfold.traces": MIB})}
    done = shell("prune", **own_servers, **kept)
    assert done.returncode == 3
    assert "SPANFOLD_LOG_RETENTION_DAYS" in done.stderr


def test_the_stack_prunes_by_itself(running: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "FIRST_S", 0.01)
    path = running.up_state.logs / "prune.log"
    with retention.pruned_regularly(running.home):
        until(lambda: path.exists() and "spanfold.traces" in path.read_text(), "what was pruned")


def test_a_pruning_that_fails_is_said_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(retention, "FIRST_S", 0.01)
    for name in ("SPANFOLD_KAFKA_BOOTSTRAP", "SPANFOLD_POSTGRES_DSN"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "logs").mkdir()
    with retention.pruned_regularly(tmp_path):
        until(lambda: caplog.messages, "the reason")
    (message,) = caplog.messages
    assert message.startswith("`spanfold prune` ended with exit code 3: no Postgres is configured")
