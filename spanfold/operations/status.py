"""What runs, and how far the read models are behind the log: by the word of the broker and of Postgres.

No worker is asked: one that hangs would answer that all is well.
"""

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Final, TypeVar

from spanfold.embedded.process_identity import Identity
from spanfold.embedded.stack_state import StackState
from spanfold.kafka.log_ends import log_bounds
from spanfold.language.errors import Misconfigured, SpanfoldError
from spanfold.language.settings import Settings
from spanfold.language.topics import Partition, installed_topics
from spanfold.operations.installation import Installation
from spanfold.operations.process_ends import (
    ProgramEnd,
    disk_problems,
    disk_warnings,
    program_ends,
    supervision_problems,
)
from spanfold.operations.process_urls import url_of
from spanfold.operations.reading import reading, without_password
from spanfold.operations.suspensions import AcceptedLoss, Suspension, accepted_losses, suspensions
from spanfold.operations.worker_group import PROJECTOR, WorkerGroup, owners

Answer = TypeVar("Answer")


class State(StrEnum):
    """How an installation is, the worst first."""

    UNREACHABLE = "unreachable"
    """Kafka or Postgres does not answer."""
    MISCONFIGURED = "misconfigured"
    """Topics or tables are not as they must be."""
    STOPPED = "stopped"
    """Nothing runs on the home, and no servers are named."""
    INCOMPLETE = "incomplete"
    """A process is not alive, a partition has no owner, something is suspended, or a projection waits for a rebuild."""
    RUNNING = "running"


@dataclass(frozen=True, slots=True)
class Process:
    """A program of the stack; without `uptime_s` it isn't alive at this moment. `url`: where it has /metrics and /healthz."""

    name: str
    pid: int
    uptime_s: float | None
    url: str | None = None


@dataclass(frozen=True, slots=True)
class Member:
    """A member of the projectors' group, and which partitions it owns, as `topic/partition`."""

    member_id: str
    host: str
    owns: Sequence[str]


@dataclass(frozen=True, slots=True)
class GroupStatus:
    """The projectors' consumer group, as its coordinator sees it."""

    name: str
    state: str
    members: Sequence[Member]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """How far a projection's generation, or the journal (generation 0), has folded a partition."""

    projection: str
    generation: int
    live: bool
    suspended: bool
    next_offset: int
    log_time: datetime | None


@dataclass(frozen=True, slots=True)
class PartitionStatus:
    """A partition. `log_end` is how far a reader of committed records gets; `owner` a member of the group.

    `lag` is `log_end` minus the next offset of the journal or the slowest live projection that is not suspended; unknown without
    checkpoints.
    """

    topic: str
    partition: int
    log_start: int
    log_end: int
    owner: str | None
    checkpoints: Sequence[Checkpoint]
    lag: int | None

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}"


@dataclass(frozen=True, slots=True)
class Status:
    """How an installation is; None is what nobody answered. No password is in `postgres_dsn`.

    `parked` counts unsettled records by reason, `rejected` others by verdict; `lag_total` is the partitions' lag together.
    `log_gaps` are losses that were accepted, and no problem any more.
    """

    state: State
    home: Path
    kafka_bootstrap: str | None
    postgres_dsn: str | None
    processes: Sequence[Process]
    group: GroupStatus | None
    partitions: Sequence[PartitionStatus]
    parked: Mapping[str, int] | None
    rejected: Mapping[str, int] | None
    lag_total: int | None
    suspensions: Sequence[Suspension]
    log_gaps: Sequence[AcceptedLoss]
    problems: Sequence[str]
    warnings: Sequence[str] = ()
    """What will be a problem; the state does not depend on it."""
    ends: Sequence[ProgramEnd] = ()
    """Why programs of the stack last ended, also those of an earlier stack on this home."""


@dataclass(frozen=True, slots=True)
class _Log:
    """What the broker answers: where the log of each partition begins and ends, who folds it."""

    bounds: Mapping[Partition, tuple[int, int]]
    group: GroupStatus
    owners: Mapping[Partition, str]

    def problems(self) -> Iterator[str]:
        for topic, partition in self.bounds:
            if (topic, partition) not in self.owners:
                yield f"no worker owns {topic}/{partition}"
        if self.group.members and self.group.state != "stable":
            # until it has settled, partitions may belong to a member that is dead
            yield f"consumer group {self.group.name} is not stable: {self.group.state}"


@dataclass(frozen=True, slots=True)
class _Tables:
    """What Postgres answers."""

    parked: Mapping[str, int]
    rejected: Mapping[str, int]
    checkpoints: Mapping[Partition, Sequence[Checkpoint]]
    to_be_rebuilt: Sequence[str]
    suspensions: Sequence[Suspension]
    log_gaps: Sequence[AcceptedLoss]
    warnings: Sequence[str]

    def problems(self) -> Iterator[str]:
        yield from map(str, self.suspensions)
        yield from self.to_be_rebuilt


def read_status(installation: Installation) -> Status:
    """How the installation is now. What Kafka or Postgres doesn't answer is a problem in it, and no reason to hide the rest."""
    settings, stack = installation.settings, installation.stack
    if not stack and not (settings.kafka_bootstrap and settings.postgres_dsn):
        return _status(State.STOPPED, settings)
    processes = list(_processes(stack, time.time())) if stack else []
    problems = [*supervision_problems(stack, datetime.now(UTC)), *disk_problems(stack.home)] if stack else []
    with ThreadPoolExecutor(2) as pool:
        log_answer, tables_answer = pool.submit(_read_log, settings), pool.submit(_read_tables, installation)
    states: list[State] = []
    log = _answered(log_answer, problems, states)
    tables = _answered(tables_answer, problems, states)
    problems += [*(log.problems() if log else ()), *(tables.problems() if tables else ())]
    partitions = list(_partitions(log, tables))
    if log and tables and any(_outside_of_the_log(partitions)):
        log, tables = _read_in_order(installation)
        partitions = list(_partitions(log, tables))
    problems += _outside_of_the_log(partitions)
    state = min(states or [State.INCOMPLETE if problems else State.RUNNING], key=list(State).index)
    return _status(state, settings, processes, log, tables, partitions, problems)


def _answered(answer: Future[Answer], problems: list[str], states: list[State]) -> Answer | None:
    """What a server has answered; an error is noted instead."""
    try:
        return answer.result()
    except SpanfoldError as error:
        problems.append(str(error))
        states.append(_state_of(error))
        return None


def _state_of(error: SpanfoldError) -> State:
    return State.MISCONFIGURED if isinstance(error, Misconfigured) else State.UNREACHABLE


def _status(
    state: State,
    settings: Settings,
    processes: Sequence[Process] = (),
    log: _Log | None = None,
    tables: _Tables | None = None,
    partitions: Sequence[PartitionStatus] = (),
    problems: Sequence[str] = (),
) -> Status:
    lags = [part.lag for part in partitions if part.lag is not None]
    return Status(
        state=state,
        home=settings.home,
        kafka_bootstrap=settings.kafka_bootstrap,
        postgres_dsn=without_password(settings.postgres_dsn),
        processes=processes,
        group=log.group if log else None,
        partitions=partitions,
        parked=tables.parked if tables else None,
        rejected=tables.rejected if tables else None,
        suspensions=tables.suspensions if tables else (),
        log_gaps=tables.log_gaps if tables else (),
        lag_total=sum(lags) if lags and len(lags) == len(partitions) else None,
        problems=problems,
        warnings=[*(disk_warnings(settings.home) if processes else ()), *(tables.warnings if tables else ())],
        ends=program_ends(settings.home),
    )


def _processes(stack: StackState, now: float) -> Iterator[Process]:
    for name, identity in {"supervisor": stack.supervisor, **stack.processes}.items():
        yield Process(name, identity.pid, _uptime_s(identity, now), url_of(stack.home, identity))


def _uptime_s(identity: Identity, now: float) -> float | None:
    return round(now - identity.created, 1) if identity.process() else None


def _read_log(settings: Settings) -> _Log:
    """What the broker says. Raises LogUnavailable, or Misconfigured when a topic is missing."""
    bounds = log_bounds(settings)
    group = WorkerGroup(settings, PROJECTOR)
    described = group.describe()
    if described is None:
        return _Log(bounds, GroupStatus(group.name, "unknown", []), {})
    names = {topic.on_broker(settings.topic_prefix): topic.name for topic in installed_topics()}
    owned = {(names[topic], partition): who for (topic, partition), who in owners(described).items() if topic in names}
    parts = defaultdict(list)
    for (topic, partition), who in sorted(owned.items()):
        parts[who].append(f"{topic}/{partition}")
    members = [
        Member(member.member_id, member.host.lstrip("/"), parts[member.member_id]) for member in described.members
    ]
    return _Log(bounds, GroupStatus(group.name, described.state.name.lower(), members), owned)


def _read_in_order(installation: Installation) -> tuple[_Log, _Tables]:
    """Both, so that records and pruning that go on meanwhile put no checkpoint outside of the log: the log's starts, then the
    checkpoints, then the log's ends. Raises as the others do.
    """
    before, tables, log = _read_log(installation.settings), _read_tables(installation), _read_log(installation.settings)
    return replace(log, bounds={at: (before.bounds[at][0], end) for at, (_, end) in log.bounds.items()}), tables


def _read_tables(installation: Installation) -> _Tables:
    """What Postgres says. Raises StoreUnavailable, or Misconfigured when the database is not prepared."""
    checkpoints: dict[Partition, list[Checkpoint]] = defaultdict(list)
    with reading(installation.dsn, "spanfold status") as connection:
        parked = dict(connection.execute(PARKED).fetchall())
        rejected = dict(connection.execute(REJECTED).fetchall())
        for topic, partition, *checkpoint in connection.execute(CHECKPOINTS):
            checkpoints[topic, partition].append(Checkpoint(*checkpoint))
        suspended, gaps = suspensions(connection), accepted_losses(connection)
    waiting, warnings = _to_be_rebuilt(installation)
    return _Tables(parked, rejected, checkpoints, waiting, suspended, gaps, warnings)


def _to_be_rebuilt(installation: Installation) -> tuple[Sequence[str], Sequence[str]]:
    """What waits for a rebuild; or why that is not known."""
    try:
        return installation.to_be_rebuilt(), ()
    except Misconfigured as error:
        return (), [str(error)]


def _partitions(log: _Log | None, tables: _Tables | None) -> Iterator[PartitionStatus]:
    for (topic, partition), (start, end) in (log.bounds if log else {}).items():
        checkpoints = tables.checkpoints.get((topic, partition), ()) if tables else ()
        live = list(_live(checkpoints))
        lag = end - min(live) if live else None
        owner = log.owners.get((topic, partition)) if log else None
        yield PartitionStatus(topic, partition, start, end, owner, checkpoints, lag)


def _live(checkpoints: Iterable[Checkpoint]) -> Iterator[int]:
    return (checkpoint.next_offset for checkpoint in checkpoints if checkpoint.live and not checkpoint.suspended)


def _outside_of_the_log(partitions: Iterable[PartitionStatus]) -> Iterator[str]:
    for part in partitions:
        if any(not part.log_start <= offset <= part.log_end for offset in _live(part.checkpoints)):
            yield f"{part}: a checkpoint is outside the log"


PARKED: Final = (
    "SELECT reason, count(*) FROM spanfold.parked_records WHERE state = 'parked' GROUP BY reason ORDER BY reason"
)

REJECTED: Final = (
    "SELECT verdict, count(*) FROM spanfold.verdicts WHERE verdict <> 'accepted' GROUP BY verdict ORDER BY 1"
)

CHECKPOINTS: Final = """
SELECT topic, partition, projection, generation, live, suspended, next_offset, log_time
  FROM spanfold.checkpoints
 ORDER BY topic, partition, generation, projection
"""
