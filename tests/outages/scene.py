"""The stack that suffers the outages: a home, the command line on it, its load, and what must hold after each outage."""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import psycopg

from spanfold.kafka.log_ends import bounds_of_topic
from spanfold.language.settings import Settings
from spanfold.language.topics import TRACES
from spanfold.operations.installation import Installation
from tests.cli.shell import Shell
from tests.outages.load import SERVICE, Load
from tests.outages.poison import REPAIRED, package
from tests.support.waiting import until

PATIENCE_S: Final = 240.0


class OutageShell(Shell):
    """The command line, with the package of the poisoned projection."""

    def __init__(self, home: Path, packages: Path) -> None:
        super().__init__(home)
        self._packages = packages

    def environment(self, **more: str) -> dict[str, str]:
        path = os.pathsep.join([str(self._packages), str(Path(__file__).parents[2])])
        repaired = str(self._packages / "repaired")
        return super().environment(PYTHONPATH=path, **{REPAIRED: repaired}, **more)


class Scene:
    """`python -m tests.outages` has one; `disk` is the tmpfs that can be filled, None where it can't be mounted."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="spanfold-outages-"))
        self._folder.chmod(0o711)
        self.disk = self._mount()
        self.packages = package(self._folder / "packages")
        home = (self.disk or self._folder) / "home"
        home.mkdir(mode=0o700)
        if self.disk is not None:
            data = self.disk / "postgres"
            data.mkdir()
            data.chmod(0o711)
            (home / "postgres").symlink_to(data)
            home.chmod(0o711)
        self.shell = OutageShell(home, self.packages)

    def _mount(self) -> Path | None:
        """A small file system of its own for the home, if this user may mount one."""
        disk = self._folder / "disk"
        disk.mkdir()
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3g,mode=711", "tmpfs", disk], capture_output=True)
        return disk if mounted.returncode == 0 else None

    def up(self) -> None:
        done = self.shell("up", "--detach", "--otlp-port", "0", "--workers", "2")
        assert done.returncode == 0, done.stderr

    def new_load(self) -> Load:
        load = Load(self.otlp_url)
        load.start()
        return load

    @property
    def otlp_url(self) -> str:
        (url,) = (each["url"] for each in self.status()["processes"] if each["name"] == "otlp")
        return str(url)

    @property
    def settings(self) -> Settings:
        return Installation.of(Settings(home=self.shell.home)).settings

    def ledger(self) -> psycopg.Connection[Any]:
        return psycopg.connect(str(self.settings.postgres_dsn), autocommit=True, connect_timeout=5)

    def status(self) -> dict[str, Any]:
        """`spanfold status --json`, whatever its exit code."""
        done = self.shell("status", "--json")
        assert done.stdout.startswith("{"), done.stderr
        return dict(json.loads(done.stdout))

    def pids(self) -> Mapping[str, int]:
        state = self.shell.up_state
        return {"supervisor": state.supervisor.pid, **{name: each.pid for name, each in state.processes.items()}}

    def until_status(self, what: str, condition: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        """The first status that meets the condition."""

        def met() -> dict[str, Any] | None:
            current = self.status()
            return current if condition(current) else None

        return until(met, what, lambda: self.status()["problems"], within_s=PATIENCE_S)

    def until_problem(self, words: str) -> str:
        """The problem that status has with these words, once it has."""

        def problem(current: dict[str, Any]) -> str | None:
            return next((each for each in current["problems"] if words in each), None)

        return str(problem(self.until_status(f"a problem with the words {words!r}", problem)))

    def until_well(self) -> None:
        """Until everything runs and status has no problem."""
        self.until_status("a stack without a problem", lambda current: current["state"] == "running")

    def until_folded(self, load: Load) -> None:
        """Until every acknowledged span is in the tables, once."""

        def lacking() -> set[tuple[str, str]]:
            return load.acknowledged.copy() - self.rows()

        sent = load.acknowledged.copy()
        until(lambda: not (sent - self.rows()), "all acknowledged spans", lambda: len(lacking()), within_s=PATIENCE_S)

    def rows(self) -> set[tuple[str, str]]:
        with self.ledger() as ledger:
            query = "SELECT trace_id, span_id FROM spanfold.spans WHERE service_name = %s"
            rows = ledger.execute(query, [SERVICE]).fetchall()
        assert len(rows) == len(set(rows)), "a span is there twice"
        return set(rows)

    def count(self, query: str) -> int:
        with self.ledger() as ledger:
            ((number,),) = ledger.execute(query.encode()).fetchall()
        return int(number)

    def bounds(self) -> dict[int, tuple[int, int]]:
        return bounds_of_topic(self.settings, TRACES.name)

    def close(self) -> None:
        with suppress(Exception):
            self.shell("down")
        postgres = (self.shell.home / "postgres").resolve()
        if self.disk is not None:
            subprocess.run(["umount", "-l", self.disk], check=False)
        shutil.rmtree(postgres, ignore_errors=True)
        shutil.rmtree(self._folder, ignore_errors=True)
