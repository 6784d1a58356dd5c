"""How Java runs in tests, whoever starts it: not as for a server that stays for weeks.

Most of what a Kafka costs that lives for a minute is loading classes and optimizing code that is gone soon. Here code is
compiled once, without the profiles that an optimizer wants, and classes come parsed and verified from an archive. It is beside
the cache of jars; the first run on a machine makes it, and so does the first one with other jars or another Java.
"""

import hashlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from spanfold.embedded.errors import MissingPart
from spanfold.embedded.jar_cache import jar_cache
from spanfold.embedded.jars import locked_jars
from spanfold.embedded.java import find_java
from spanfold.embedded.kafka import KafkaNode, kafka_program
from spanfold.embedded.ports import free_port
from spanfold.embedded.programs import Guard, spawn
from tests.support.waiting import until

VARIABLE: Final = "JDK_JAVA_OPTIONS"
"""Every `java` reads it."""

COMPILED_ONCE: Final = "-XX:TieredStopAtLevel=1"

STOP_S: Final = 60.0
"""Longer than the writing of an archive takes."""


def pytest_configure(config: pytest.Config) -> None:
    """pytest-xdist's workers inherit the options, and so does all that is started."""
    if not hasattr(config, "workerinput"):
        given = os.environ.get(VARIABLE, "")
        os.environ[VARIABLE] = f"{given} {COMPILED_ONCE} -XX:SharedArchiveFile={archive()}".strip()


def archive() -> Path:
    """Where the archive is, or will be. Java does without one that is not there, and without one that does not fit."""
    try:
        java = str(find_java().resolve())
    except MissingPart:
        java = ""
    parts = " ".join([java, *(jar.filename for jar in locked_jars())])
    return jar_cache().parent / f"test-classes-{hashlib.sha256(parts.encode()).hexdigest()[:12]}.jsa"


def ensure_archive() -> None:
    """Make the archive, unless it is there and fits."""
    jars = [jar_cache() / jar.filename for jar in locked_jars()]
    if not _fits(archive(), jars):
        with tempfile.TemporaryDirectory(prefix="test-classes-", dir=jar_cache().parent) as folder:
            made = Path(folder) / "archive"
            _run_kafka(Path(folder), jars, f"{COMPILED_ONCE} -XX:ArchiveClassesAtExit={made}")
            made.replace(archive())


def _fits(made: Path, jars: Sequence[Path]) -> bool:
    options = ["-Xshare:on", f"-XX:SharedArchiveFile={made}", "-cp", os.pathsep.join(map(str, jars))]
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
    done = subprocess.run([find_java(), *options, "-version"], env=environment, capture_output=True, timeout=60)
    return done.returncode == 0


def _run_kafka(folder: Path, jars: Sequence[Path], options: str) -> None:
    """Run a Kafka with these options of Java until it has answered."""
    port = free_port([])
    program = kafka_program(KafkaNode(1, port, free_port([port]), folder / "kafka"), find_java(), jars, folder)
    assert program.ready
    guard = Guard(folder / "guard.log", lambda: None)
    process = spawn(replace(program, env={**program.env, VARIABLE: options}), folder, guard)
    until(program.ready, "a Kafka whose classes are archived", (folder / "kafka.log").read_text)
    process.send_signal(signal.SIGTERM)
    process.wait(STOP_S)
    guard.release()
