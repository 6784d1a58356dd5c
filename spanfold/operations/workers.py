"""Restarts the workers of a running stack; servers and OTLP go on."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from confluent_kafka import ConsumerGroupState

from spanfold.embedded.control import request_restart
from spanfold.embedded.process_ends import ProcessRecord, process_records
from spanfold.embedded.process_identity import Identity
from spanfold.embedded.stack_state import StackState, read_state
from spanfold.language.errors import Misconfigured, NotFound, SpanfoldError
from spanfold.language.progress import NO_PROGRESS, ProgressListener
from spanfold.operations.installation import Installation, command_line
from spanfold.operations.process_urls import url_of
from spanfold.operations.worker_group import PROJECTOR, SNAPSHOTS, WorkerGroup

RESTART_TIMEOUT_S: Final = 120.0
POLL_S: Final = 0.1


class WorkersNotReady(SpanfoldError):
    """Workers were restarted, and did not begin to work. They are started again until they do."""


@dataclass(frozen=True, slots=True)
class Restarted:
    """The new processes of the workers that were restarted: pids by name."""

    workers: Mapping[str, int]


def worker_names(stack: StackState) -> list[str]:
    """The programs of the stack that are workers."""
    return [name for name in stack.processes if name == SNAPSHOTS or name.startswith(f"{PROJECTOR}-")]


def restart_workers(
    installation: Installation,
    name: str | None = None,
    timeout_s: float = RESTART_TIMEOUT_S,
    progress: ProgressListener = NO_PROGRESS,
) -> Restarted:
    """Stop the workers of the running stack, or this one, in order and start them again, with the code that is installed now.

    Returns once they have joined their consumer groups. Misconfigured when no stack runs on the home, NotFound when it has no
    such worker; WorkersNotReady as soon as one keeps ending, or after `timeout_s`.
    """
    stack, home = installation.stack, installation.settings.home
    if stack is None:
        raise Misconfigured(f"no stack is running in {home}: start one with `{command_line(home, 'up', '--detach')}`")
    names = worker_names(stack)
    if name is not None and name not in names:
        raise NotFound(f"no worker named {name!r} in {home}; expected one of {', '.join(names) or 'none'}")
    chosen = [name] if name else names
    progress.step(f"restarting {', '.join(chosen)}")
    with closing(_Restart(installation, stack, chosen)) as restart:
        request_restart(home, chosen)
        return Restarted(restart.wait(timeout_s))


class _Restart:
    """A restart of these programs, from just before it is asked for until they work again."""

    def __init__(self, installation: Installation, before: StackState, names: Sequence[str]) -> None:
        self._home = before.home
        self._before: dict[str, Identity] = {name: before.processes[name] for name in names}
        self._requested_at = datetime.now(UTC)
        self._newcomers = Counter(SNAPSHOTS if name == SNAPSHOTS else PROJECTOR for name in names)
        self._groups = {kind: WorkerGroup(installation.settings, kind) for kind in self._newcomers}
        self._members = {kind: group.member_ids() for kind, group in self._groups.items()}

    def wait(self, timeout_s: float) -> Mapping[str, int]:
        """The pids of the new processes, once they are in their groups."""
        deadline = time.monotonic() + timeout_s
        while True:
            now = read_state(self._home)
            if now and self._serve(now) and all(map(self._joined, self._groups)):
                return {name: now.processes[name].pid for name in self._before}
            ended = [record for record in process_records(self._home) if self._keeps_ending(record)]
            if ended or time.monotonic() > deadline:
                raise WorkersNotReady(self._explanation(ended, timeout_s))
            time.sleep(POLL_S)

    def close(self) -> None:
        """Drop the clients."""
        for group in self._groups.values():
            group.close()

    def _serve(self, now: StackState) -> bool:
        """Whether all are other processes now, and have left their URLs."""
        processes = {name: now.processes.get(name) for name in self._before}
        return all(
            identity is not None and identity != self._before[name] and url_of(self._home, identity) is not None
            for name, identity in processes.items()
        )

    def _joined(self, kind: str) -> bool:
        described = self._groups[kind].describe()
        if described is None or described.state != ConsumerGroupState.STABLE:
            return False
        return len({member.member_id for member in described.members} - self._members[kind]) >= self._newcomers[kind]

    def _keeps_ending(self, record: ProcessRecord) -> bool:
        """Whether it has ended for a reason that another try won't change, or so often that it is a crash loop."""
        if record.name not in self._before or record.last_end is None or record.last_end.ended_at < self._requested_at:
            return False
        return record.crash_loop(record.last_end.ended_at) is not None

    def _explanation(self, ended: Sequence[ProcessRecord], timeout_s: float) -> str:
        see = f"Workers that end are started again; see `{command_line(self._home, 'status')}`"
        if not ended:
            return f"{', '.join(self._before)} did not begin to work within {timeout_s:g} s. {see}"
        reasons = "; ".join(
            f"{record.name} ended ({record.last_end.manner}): {record.last_end.error}"
            for record in ended
            if record.last_end
        )
        return f"{reasons}. {see}"
