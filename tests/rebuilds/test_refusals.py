"""What can't be rebuilt is refused, or fails, with a reason; the live tables stay as they are."""

import os
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from spanfold.kafka.client import kafka_config
from spanfold.language.errors import Misconfigured
from spanfold.language.settings import Settings
from spanfold.language.topics import TRACES
from spanfold.projections.projection import View
from spanfold.projections.traces import TracesProjection
from spanfold.stream_processors.rebuild import rebuild as rebuilding
from tests.support.commands import command
from tests.support.databases import Ledger
from tests.support.generations import NOTHING, at_work, leftovers, states
from tests.support.publishing import publish
from tests.support.tables import rows
from tests.support.workers import Worker, folded

pytestmark = pytest.mark.usefixtures("topics", "forkserver")


class Shorter(TracesProjection):
    """Its view of traces has lost its last column."""

    fold_version = 2
    views: Sequence[View] = tuple(
        replace(view, select=f"SELECT trace_id, status FROM ({view.select}) AS v") if view.name == "traces" else view
        for view in TracesProjection.views
    )


def test_a_log_that_no_longer_reaches_back(stack_settings: Settings, ledger: Ledger, folding: Worker) -> None:
    before, stood = rows(ledger), states(ledger)
    topic = TRACES.on_broker(stack_settings.topic_prefix)
    admin = AdminClient(kafka_config(stack_settings))
    for future in admin.delete_records([TopicPartition(topic, 1, 10)]).values():
        future.result()
    done = command(stack_settings, "rebuild", "traces")
    assert done.returncode == 3, done.stderr
    assert f"the log of {topic}/1 holds offsets 10 to" in done.stderr
    with at_work(stack_settings) as context:
        rebuilding.abort(context)
    assert (rows(ledger), states(ledger)) == (before, stood)
    assert leftovers(ledger) == NOTHING


def test_a_view_that_would_shrink(stack_settings: Settings, ledger: Ledger, folding: Worker) -> None:
    before, stood = rows(ledger), states(ledger)
    for attempt in (rebuilding.preview, lambda context: rebuilding.rebuild(context, 1)):
        with at_work(stack_settings, Shorter()) as context, pytest.raises(Misconfigured, match="only grows at its end"):
            attempt(context)
    assert (rows(ledger), states(ledger)) == (before, stood)
    assert leftovers(ledger) == NOTHING


def test_an_unknown_projection(stack_settings: Settings, ledger: Ledger) -> None:
    for words in (("rebuild", "trace"), ("verify", "trace"), ("rollback", "trace")):
        done = command(stack_settings, *words)
        assert done.returncode == 2
        assert "unknown projection trace; expected one of logs, metrics, " in done.stderr


def test_one_rebuild_at_a_time(stack_settings: Settings, ledger: Ledger) -> None:
    with at_work(stack_settings) as context:
        done = command(stack_settings, "rebuild", "traces")
        assert done.returncode == 3
        assert f"pid {context.control.info.backend_pid} on" in done.stderr
    done = command(stack_settings, "rollback", "traces")
    assert done.returncode == 3
    assert "nothing to go back to" in done.stderr


def test_a_dry_run_says_what_would_be_loaded(stack_settings: Settings, ledger: Ledger, folding: Worker) -> None:
    stood = states(ledger)
    done = command(stack_settings, "rebuild", "traces", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "spanfold.traces/0: " in done.stdout
    assert states(ledger) == stood
    assert leftovers(ledger) == NOTHING


@pytest.fixture
def small_tablespace(ledger: Ledger, tmp_path_factory: Any) -> Iterator[str]:
    """A tablespace of 4 MiB, on a file system of its own."""
    if os.getuid() != 0:
        pytest.skip("only root can mount the small file system that this takes")
    folder = Path("/tmp") / f"small_{os.getpid()}"  # noqa: S108  (the server's user must get there)
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(folder)], capture_output=True)
    if mounted.returncode:
        folder.rmdir()
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.decode()}")
    try:
        (data,) = ledger.execute("SHOW data_directory").fetchone() or ("",)
        owner = Path(data).stat()
        os.chown(folder, owner.st_uid, owner.st_gid)
        name = folder.name
        ledger.execute(f"CREATE TABLESPACE {name} LOCATION '{folder}'".encode())
        yield name
        ledger.execute(f"DROP TABLESPACE {name}".encode())
    finally:
        subprocess.run(["umount", str(folder)], check=False)
        folder.rmdir()


def test_a_full_disk(stack_settings: Settings, ledger: Ledger, folding: Worker, small_tablespace: str) -> None:
    publish(stack_settings, 12_000, seed=3)
    folded(ledger, stack_settings, folding)
    before, stood = rows(ledger), states(ledger)
    done = command(stack_settings, "rebuild", "traces", "--tablespace", small_tablespace)
    assert done.returncode == 4, done.stderr
    assert "No space left on device" in done.stderr
    assert "live tables are as they were" in done.stderr
    assert rows(ledger) == before
    aborted = command(stack_settings, "rebuild", "traces", "--abort")
    assert aborted.returncode == 0, aborted.stderr
    assert states(ledger) == stood
    assert leftovers(ledger) == NOTHING
    publish(stack_settings, 500, seed=4)
    folded(ledger, stack_settings, folding)


def test_the_database_is_away(stack_settings: Settings, ledger: Ledger) -> None:
    nowhere = stack_settings.model_copy(update={"postgres_dsn": "postgresql://localhost:1/nothing"})
    assert command(nowhere, "rebuild", "traces").returncode == 4
    assert isinstance(ledger, psycopg.Connection)
