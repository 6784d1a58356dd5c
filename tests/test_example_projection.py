"""The example of a projection of one's own, through its life on a running system, as docs/your-own-projection.md tells it."""

import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import time
import uuid
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from spanfold.language.events import SpanRecorded
from spanfold.language.settings import Settings
from spanfold.producers.publisher import TelemetryPublisher
from spanfold.schemas.codec import Codec
from tests.support.commands import environment
from tests.support.databases import Ledger
from tests.support.generations import NOTHING, leftovers
from tests.support.load import Load
from tests.support.processes import SPANFOLD, Captured, Finished
from tests.support.publishing import publish_mixed
from tests.support.waiting import until
from tests.support.workers import Start, folded

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "your-own-projection.md"
SECOND_US = 1_000_000


def commands_of_the_page() -> list[str]:
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


class Terminal:
    """Types the page's commands into an environment of its own, which sees all that is installed here."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.typed: list[str] = []
        self._settings, self._example = settings, folder / "slow_operations"
        shutil.copytree(ROOT / "examples" / "slow_operations", self._example)
        venv.create(folder / "venv", symlinks=True)
        self.python = str(folder / "venv" / "bin" / "python")
        (site,) = (folder / "venv" / "lib").glob("python3*/site-packages")
        here = sysconfig.get_paths()["purelib"]
        (site / "here.pth").write_text(f"import site; site.addsitedir({here!r})\n")

    def install(self) -> None:
        """Type the first command."""
        line = "pip install -e examples/slow_operations"
        self.typed.append(line)
        words = shlex.split(line.replace("examples/slow_operations", str(self._example)))[1:]
        argv = [sys.executable, "-m", "pip", "--python", self.python, *words, "--no-deps", "--no-build-isolation"]
        done = subprocess.run(argv, env=environment(self._settings), capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr

    def type(self, line: str) -> Captured:
        """Start the command of this line."""
        self.typed.append(line)
        program, *words = shlex.split(line)
        assert program == "spanfold"
        return Captured([*SPANFOLD, *words], environment(self._settings), python=self.python)

    def __call__(self, line: str, exit_code: int = 0) -> Finished:
        return ended(self.type(line), exit_code)

    def edit(self, was: str, now: str) -> None:
        """Change the example's code."""
        module = self._example / "slow_operations.py"
        code = module.read_text()
        assert was in code
        module.write_text(code.replace(was, now))
        # what was compiled of a file of the same size in the same second would be taken for current
        shutil.rmtree(self._example / "__pycache__", ignore_errors=True)


def ended(process: Captured, exit_code: int = 0) -> Finished:
    """What the command said, once it has ended by itself."""
    done = process.finish(120)
    assert done.returncode == exit_code, done
    return done


@pytest.fixture
def terminal(tmp_path: Path, stack_settings: Settings) -> Terminal:
    return Terminal(tmp_path, stack_settings)


@contextmanager
def load(settings: Settings, seed: int) -> Iterator[None]:
    """Events come, until the block ends."""
    coming = Load(settings, seed, 1000, per_second=1000)
    coming.start()
    try:
        yield
        coming.finish()
    finally:
        coming.abandon()


def generations(ledger: Ledger) -> dict[int, tuple[str, int]]:
    query = """
        SELECT generation, state, fold_version FROM spanfold.projections WHERE projection = 'slow_operations' ORDER BY 1
    """
    return {number: (state, version) for number, state, version in ledger.execute(query)}


def shown(ledger: Ledger) -> dict[Any, Any]:
    rows = ledger.execute(
        "SELECT service_name, operation_name, hour, calls, slowest_ms, slowest_trace_id FROM spanfold.slow_operations"
    )
    return {(service, operation, hour): tuple(rest) for service, operation, hour, *rest in rows}


def reference(ledger: Ledger, slow_us: int) -> dict[Any, Any]:
    """The same rows from the journal, one record of a span after the other."""
    found: dict[Any, list[tuple[int, str]]] = {}
    codec = Codec()
    query = """
        SELECT payload FROM spanfold.journal j
         WHERE event_type = 'SpanRecorded'
           AND NOT EXISTS (SELECT FROM spanfold.parked_records p
                            WHERE (p.topic, p.partition, p.kafka_offset) = (j.topic, j.partition, j.kafka_offset))
    """
    for (payload,) in ledger.execute(query):
        _, span = codec.decode(payload)
        names = ("service_name", "operation_name", "aggregate_id", "start_time", "end_time")
        service, operation, trace_id, begin, end = (span[name] for name in names)
        if end - begin >= slow_us:
            hour = datetime.fromtimestamp(end // SECOND_US, UTC).replace(minute=0, second=0)
            found.setdefault((service[:200], operation[:200], hour), []).append((end - begin, trace_id))
    return {key: (len(calls), max(calls)[0] / 1000, max(calls)[1]) for key, calls in found.items()}


@pytest.mark.timeout(900)
def test_the_life_of_a_projection_of_ones_own(
    stack_settings: Settings, ledger: Ledger, start: Start, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = start()
    publish_mixed(stack_settings, 3000)
    folded(ledger, stack_settings, first)

    # installed on a running system
    terminal.install()
    notice = "slow_operations is new here: run `spanfold rebuild slow_operations`"
    assert notice in terminal("spanfold migrate").stderr
    assert generations(ledger) == {}
    monkeypatch.setattr(sys, "executable", terminal.python)  # workers from here on have the example
    old = start()
    until(lambda: notice in old.output(), "the notice", old.output)
    assert first.stop() == 0
    with load(stack_settings, 2):
        done = terminal("spanfold rebuild slow_operations")
    assert "rebuilt slow_operations: " in done.stdout
    assert generations(ledger) == {1: ("live", 1)}
    folded(ledger, stack_settings, old)
    assert len(reference(ledger, SECOND_US)) > 10
    assert shown(ledger) == reference(ledger, SECOND_US)
    assert terminal("spanfold sql 'SELECT * FROM slow_operations ORDER BY calls DESC LIMIT 5'").stderr == "(5 rows)\n"
    assert re.search(r"slow_operations: \d+ rows, equal", terminal("spanfold verify slow_operations").stdout)

    # changed, and nobody was told
    terminal.edit("SLOW_US = 1_000_000", "SLOW_US = 500_000")
    differing = terminal("spanfold verify slow_operations", exit_code=1).stdout
    assert re.search(r"slow_operations: \d+ live rows and \d+ rebuilt ones differ", differing)
    assert re.search(r"slow_operations partition=\d, service_name=\w+, .*: calls is \d+, rebuilt \d+", differing)
    assert shown(ledger) == reference(ledger, SECOND_US)

    # changed, with another fold version
    terminal.edit("fold_version = 1", "fold_version = 2")
    with load(stack_settings, 3):
        rebuild = terminal.type("spanfold rebuild slow_operations")
        until(lambda: generations(ledger).get(2) == ("live", 2), "the swap", lambda: generations(ledger))
        assert "previous" in terminal("spanfold projections").stdout
        assert rebuild.poll() is None, rebuild.finish()
        assert old.process.poll() is None
        new = start()
        assert old.stop() == 0
        assert "following the log" in ended(rebuild).stderr
    folded(ledger, stack_settings, new)
    assert shown(ledger) == reference(ledger, SECOND_US // 2)

    # back again
    terminal.edit("fold_version = 2", "fold_version = 1")
    terminal.edit("SLOW_US = 500_000", "SLOW_US = 1_000_000")
    with load(stack_settings, 4):
        rollback = terminal.type("spanfold rollback slow_operations")
        until(lambda: generations(ledger)[1] == ("live", 1), "the swap", lambda: generations(ledger))
        again = start()
        assert new.stop() == 0
        assert "rolled back slow_operations: " in ended(rollback).stdout
    folded(ledger, stack_settings, again)
    assert shown(ledger) == reference(ledger, SECOND_US)
    terminal("spanfold projections drop-previous slow_operations")
    assert generations(ledger) == {1: ("live", 1)}
    assert leftovers(ledger) == NOTHING
    assert set(terminal.typed) == set(commands_of_the_page())


def trickle(settings: Settings, seconds: float) -> None:
    """An event now and then, in any partition."""
    end = time.monotonic() + seconds
    with TelemetryPublisher(settings) as publisher:
        while time.monotonic() < end:
            now = time.time_ns() // 1000
            publisher.publish(
                SpanRecorded(
                    aggregate_id=uuid.uuid4().hex, occurred_at=now, source="test", span_id="1", parent_span_id=None,
                    service_name="shop", operation_name="pay", start_time=now - 2 * SECOND_US, end_time=now,
                )
            )  # fmt: skip
            assert publisher.flush(10) == 0
            time.sleep(0.2)


def test_the_log_is_followed_for_as_long_as_an_old_worker_folds_some_of_it(
    stack_settings: Settings, ledger: Ledger, start: Start, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal.install()
    assert "created generation 1 of projection slow_operations" in terminal("spanfold migrate").stdout
    monkeypatch.setattr(sys, "executable", terminal.python)
    old = start()
    trickle(stack_settings, 1)
    folded(ledger, stack_settings, old)
    terminal.edit("fold_version = 1", "fold_version = 2")
    rebuild = terminal.type("spanfold rebuild slow_operations")
    until(lambda: generations(ledger).get(2) == ("live", 2), "the swap", lambda: generations(ledger))
    new = start()
    trickle(stack_settings, 20)
    folded(ledger, stack_settings, old, new)
    assert rebuild.poll() is None, rebuild.finish()
    assert old.stop() == 0
    trickle(stack_settings, 1)
    ended(rebuild)
    folded(ledger, stack_settings, new)
    assert shown(ledger) == reference(ledger, SECOND_US)
