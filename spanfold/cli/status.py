"""`spanfold status`: what runs, and how far the read models are behind the log, by the broker's word and Postgres'.

No worker is asked: one that hangs would say that all is well.
"""

import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import psycopg
import typer
from rich.console import RenderableType
from rich.text import Text

from spanfold.cli.output import console, notices, print_json, table
from spanfold.cli.stack import (
    PROJECTOR,
    AsJson,
    Home,
    WorkerGroup,
    chosen_settings,
    command_line,
    named_postgres,
    owners,
    running_settings,
    to_be_rebuilt,
    unreachable_postgres,
)
from spanfold.cli.worker_urls import url_of
from spanfold.embedded import StackState, read_state
from spanfold.embedded.process_identity import Identity
from spanfold.kafka.log_ends import log_bounds
from spanfold.language.errors import Misconfigured, SpanfoldError
from spanfold.language.settings import Settings
from spanfold.language.topics import Partition, installed_topics

SOMETHING_MISSING: Final = 1
NOTHING_RUNS: Final = 3


@dataclass(frozen=True, slots=True)
class Process:
    """A program of the stack; without `uptime_s` it isn't alive at this moment. `url`: where a worker has /metrics and
    /healthz.
    """

    name: str
    pid: int
    uptime_s: float | None
    url: str | None = None


@dataclass(frozen=True, slots=True)
class Member:
    """A member of the projectors' group, and which partitions it owns, as `topic/partition`."""

    member_id: str
    host: str
    owns: list[str]


@dataclass(frozen=True, slots=True)
class GroupStatus:
    """The projectors' consumer group, as its coordinator sees it."""

    name: str
    state: str
    members: list[Member]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """How far a projection's generation, or the journal (generation 0), has folded a partition."""

    projection: str
    generation: int
    live: bool
    next_offset: int
    log_time: datetime | None


@dataclass(slots=True)
class PartitionStatus:
    """A partition. `log_end` is how far a reader of committed records gets; `owner` a member of the group.

    `lag` is `log_end` minus the next offset of the slowest live projection or the journal; unknown without checkpoints.
    """

    topic: str
    partition: int
    log_start: int
    log_end: int
    owner: str | None
    checkpoints: list[Checkpoint] = field(default_factory=list)
    lag: int | None = None


@dataclass(slots=True)
class Status:
    """All that `spanfold status` shows; None is what nobody answered.

    `parked` counts unsettled records by reason, `rejected` others by verdict; `lag_total` is the partitions' lag together.
    """

    home: Path
    kafka_bootstrap: str | None
    postgres_dsn: str | None
    processes: list[Process] = field(default_factory=list)
    group: GroupStatus | None = None
    partitions: list[PartitionStatus] = field(default_factory=list)
    parked: dict[str, int] | None = None
    rejected: dict[str, int] | None = None
    lag_total: int | None = None
    problems: list[str] = field(default_factory=list)


def status(home: Home = None, as_json: AsJson = False) -> None:
    """Show what is running, and how far the read models lag behind the log.

    Lag is the end of the log, as the broker has it, minus the checkpoint in Postgres. Ends with 0 when all runs and
    every partition has an owner, 1 when something is missing, 3 when nothing runs there, 4 when Kafka or Postgres
    doesn't answer.

    Example: spanfold status --json | jq .lag_total
    """
    chosen = chosen_settings(home)
    state = read_state(chosen.home)
    found = running_settings(chosen)
    shown = Status(chosen.home, found.kafka_bootstrap, found.postgres_dsn)
    code = _look(shown, state, found) if state or (shown.kafka_bootstrap and shown.postgres_dsn) else NOTHING_RUNS
    if as_json:
        print_json(shown)
    elif code == NOTHING_RUNS and not shown.problems:
        start = command_line(chosen.home, "up", "--detach")
        notices().print(f"Nothing is running in {chosen.home}. Start a stack with `{start}`.")
    else:
        _show(shown)
    raise typer.Exit(code)


def _look(shown: Status, state: StackState | None, settings: Settings) -> int:
    """Fill in what Kafka and Postgres answer; returns the exit code. What one doesn't say is no reason to hide the rest."""
    shown.processes = list(_processes(state, time.time())) if state else []
    shown.problems = [f"{each.name} (pid {each.pid}) is not alive" for each in shown.processes if each.uptime_s is None]
    codes = []
    for part in (_add_log, _add_tables):
        try:
            part(shown, settings)
        except SpanfoldError as error:
            shown.problems.append(str(error))
            codes.append(error.exit_code)
    return max(codes, default=SOMETHING_MISSING if shown.problems else 0)


def _processes(state: StackState, now: float) -> Iterator[Process]:
    for name, identity in {"supervisor": state.supervisor, **state.processes}.items():
        yield Process(name, identity.pid, _uptime_s(identity, now), url_of(state.home, identity))


def _uptime_s(identity: Identity, now: float) -> float | None:
    return round(now - identity.created, 1) if identity.process() else None


def _add_log(shown: Status, settings: Settings) -> None:
    """What the broker says. Raises LogUnavailable, or Misconfigured when a topic is missing."""
    bounds = log_bounds(settings)
    shown.group, owned = _group(settings)
    for (topic, partition), (start, end) in bounds.items():
        owner = owned.get((topic, partition))
        shown.partitions.append(PartitionStatus(topic, partition, start, end, owner))
        if owner is None:
            shown.problems.append(f"{topic}/{partition} is owned by no worker")
    if shown.group.members and shown.group.state != "stable":
        # until it has settled, partitions may belong to a member that is dead
        shown.problems.append(f"the group {shown.group.name} is not settled: {shown.group.state}")


def _group(settings: Settings) -> tuple[GroupStatus, dict[Partition, str]]:
    """The group, and which member owns a partition."""
    group = WorkerGroup(settings, PROJECTOR)
    described = group.describe()
    if described is None:
        return GroupStatus(group.name, "unknown", []), {}
    names = {topic.on_broker(settings.topic_prefix): topic.name for topic in installed_topics()}
    owned = {(names[topic], partition): who for (topic, partition), who in owners(described).items() if topic in names}
    parts = defaultdict(list)
    for (topic, partition), who in sorted(owned.items()):
        parts[who].append(f"{topic}/{partition}")
    members = [Member(each.member_id, each.host.lstrip("/"), parts[each.member_id]) for each in described.members]
    return GroupStatus(group.name, described.state.name.lower(), members), owned


def _add_tables(shown: Status, settings: Settings) -> None:
    """What Postgres says. Raises StoreUnavailable, or Misconfigured when the database is not prepared."""
    try:
        with psycopg.connect(
            named_postgres(settings), connect_timeout=5, application_name="spanfold status"
        ) as connection:
            shown.parked = dict(connection.execute(PARKED).fetchall())
            shown.rejected = dict(connection.execute(REJECTED).fetchall())
            checkpoints = connection.execute(CHECKPOINTS).fetchall()
    except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName) as error:
        raise Misconfigured("the database is not prepared: run `spanfold migrate`") from error
    except psycopg.OperationalError as error:
        raise unreachable_postgres(error) from error
    shown.problems += to_be_rebuilt(settings)
    _add_checkpoints(shown, checkpoints)


def _add_checkpoints(shown: Status, rows: list[tuple[Any, ...]]) -> None:
    at = {(each.topic, each.partition): each for each in shown.partitions}
    for topic, partition, *checkpoint in rows:
        if found := at.get((topic, partition)):
            found.checkpoints.append(Checkpoint(*checkpoint))
    for each in shown.partitions:
        live = [checkpoint.next_offset for checkpoint in each.checkpoints if checkpoint.live]
        each.lag = each.log_end - min(live) if live else None
        if live and not each.log_start <= min(live) <= max(live) <= each.log_end:
            shown.problems.append(f"{each.topic}/{each.partition}: a checkpoint lies outside of what the log holds")
    lags = [each.lag for each in shown.partitions if each.lag is not None]
    shown.lag_total = sum(lags) if lags and len(lags) == len(shown.partitions) else None


PARKED: Final = (
    "SELECT reason, count(*) FROM spanfold.parked_records WHERE state = 'parked' GROUP BY reason ORDER BY reason"
)

REJECTED: Final = (
    "SELECT verdict, count(*) FROM spanfold.verdicts WHERE verdict <> 'accepted' GROUP BY verdict ORDER BY 1"
)

CHECKPOINTS: Final = """
SELECT topic, partition, projection, generation, live, next_offset, log_time
  FROM spanfold.checkpoints
 ORDER BY topic, partition, generation, projection
"""


def _show(shown: Status) -> None:
    screen = console()
    urls = table(
        ("", ""), [("Home", str(shown.home)), ("Kafka", shown.kafka_bootstrap), ("Postgres", shown.postgres_dsn)]
    )
    for section in (urls, *_sections(shown)):
        screen.print(section)
        screen.print()
    for problem in shown.problems:
        screen.print(Text(f"! {problem}", style="bold red"))


def _sections(shown: Status) -> Iterator[RenderableType]:
    if shown.processes:
        rows = [
            (each.name, each.pid, _duration(each.uptime_s), f"{each.url}/metrics" if each.url else "")
            for each in shown.processes
        ]
        yield table(("process", "pid", "uptime", "metrics"), rows)
    if shown.group:
        members = [
            (each.member_id, each.host, ", ".join(each.owns) or _alarm("owns nothing")) for each in shown.group.members
        ]
        yield table(("worker", "host", "owns"), members, f"group {shown.group.name}: {shown.group.state}")
    if shown.partitions:
        yield _partition_table(shown)
    for title, counts in (("parked", shown.parked), ("rejected", shown.rejected)):
        if counts is not None:
            yield table((title, "records"), [*counts.items()] or [("nothing", 0)])


def _partition_table(shown: Status) -> RenderableType:
    """One line a partition: where the log begins and ends, and each projection's next offset."""
    names = list(dict.fromkeys(_label(each) for part in shown.partitions for each in part.checkpoints))
    rows = []
    for part in shown.partitions:
        at = {_label(each): each.next_offset for each in part.checkpoints}
        owner = part.owner or _alarm("nobody")
        place = f"{part.topic}/{part.partition}"
        rows.append((place, part.log_start, part.log_end, *(at.get(name) for name in names), part.lag, owner))
    return table(("partition", "log start", "log end", *names, "lag", "owner"), rows, _lag(shown.lag_total))


def _label(checkpoint: Checkpoint) -> str:
    if checkpoint.projection == "snapshots" or checkpoint.generation < 1:
        return checkpoint.projection
    name = f"{checkpoint.projection} g{checkpoint.generation}"
    return name if checkpoint.live else f"{name} (not live)"


def _lag(total: int | None) -> str:
    return "lag: unknown" if total is None else f"lag: {total} records"


def _alarm(words: str) -> Text:
    return Text(words, style="bold red")


def _duration(seconds: float | None) -> str | Text:
    if seconds is None:
        return _alarm("not alive")
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h {minutes}m" if hours else f"{minutes}m {rest}s" if minutes else f"{rest}s"
