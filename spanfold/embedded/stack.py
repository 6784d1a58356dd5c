"""The embedded stack: a real Kafka and a real Postgres on this machine, without Docker."""

import logging
import os
import signal
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from queue import SimpleQueue
from types import FrameType, TracebackType
from typing import Final, Self

from spanfold.embedded.control import Control
from spanfold.embedded.disks import StackDisks
from spanfold.embedded.errors import unusable_home
from spanfold.embedded.log_files import rotate_logs
from spanfold.embedded.postgres import postgres_folder
from spanfold.embedded.process_ends import ProcessHistory
from spanfold.embedded.process_identity import Identity
from spanfold.embedded.programs import Guard, Program
from spanfold.embedded.servers import plan_servers, start_servers
from spanfold.embedded.stack_state import (
    STATE_FILE,
    StackState,
    last_supervisor,
    lock_home,
    stop_leftovers,
    write_state,
)
from spanfold.embedded.supervisor import NotReady, Supervisor
from spanfold.language.progress import NO_PROGRESS, ProgressListener
from spanfold.language.settings import Settings, default_home

log = logging.getLogger("spanfold.supervisor")

HOUSEKEEPING_S: Final = 5.0
GUARD_PAUSE_S: Final = 0.2


class EmbeddedStack:
    """Kafka and Postgres as children of this process, with what is launched beside them.

    Data, logs and state are kept in `home`; a second stack on the same home is refused. An `ephemeral` stack lives
    in a fresh temporary folder that is gone after `stop`, and also when this process was killed. A server that
    exists already is named by `kafka_bootstrap` or `postgres_dsn`, and not started. `ports` are where the others listen: kafka,
    kafka_controller, postgres.

    >>> with EmbeddedStack(ephemeral=True) as stack:
    ...     psycopg.connect(stack.state.postgres_dsn)
    """

    def __init__(
        self,
        home: Path | None = None,
        *,
        kafka_bootstrap: str | None = None,
        postgres_dsn: str | None = None,
        ephemeral: bool = False,
        ports: Mapping[str, int] | None = None,
    ) -> None:
        self._home = home or default_home()
        self._kafka_bootstrap = kafka_bootstrap
        self._postgres_dsn = postgres_dsn
        self._ephemeral = ephemeral
        self._ports = ports
        self._signals: SimpleQueue[signal.Signals] = SimpleQueue()
        self._publishing = threading.Lock()
        self._unpublished = False
        self._state: StackState | None = None
        self._lock: int | None = None
        self._guard: Guard | None = None
        self._supervisor: Supervisor | None = None
        self._ending = threading.Event()
        self._housekeeper: threading.Thread | None = None
        self._control: Control | None = None
        self.unready: Sequence[NotReady] = ()

    @classmethod
    def from_settings(
        cls, settings: Settings, *, ephemeral: bool = False, ports: Mapping[str, int] | None = None
    ) -> Self:
        """The stack that the settings describe: its home, and the servers that they name."""
        return cls(
            settings.home,
            kafka_bootstrap=settings.kafka_bootstrap,
            postgres_dsn=settings.postgres_dsn,
            ephemeral=ephemeral,
            ports=ports,
        )

    @property
    def state(self) -> StackState:
        """Where everything is. Only a started stack has one."""
        if self._state is None:
            raise RuntimeError("the stack is not started")
        return self._state

    def start(self, progress: ProgressListener = NO_PROGRESS) -> StackState:
        """Start both servers and return once they answer.

        Raises HomeInUse, Misconfigured, MissingPart, JarMismatch, DownloadFailed or ChildFailed, and leaves nothing running.
        """
        try:
            self._take_home()
            self._start_servers(progress)
        except OSError as error:
            self.stop()
            raise unusable_home(self._home, error) from error
        except BaseException:
            self.stop()
            raise
        return self.state

    def launch(self, *programs: Program) -> Sequence[NotReady]:
        """Start programs at once, with the settings that lead to this stack in their environment; see Supervisor.launch.

        They are kept alive and are stopped, last first, before the servers. Returns those that are not ready (`unready`).
        """
        environment = self.state.environment
        self.unready = self._running_supervisor().launch(
            *(replace(program, env={**environment, **program.env}) for program in programs)
        )
        self._publish()
        if not self.unready:
            self._history.ready()
        return self.unready

    @property
    def was_ready(self) -> bool:
        """Whether a stack on this home has had all its programs ready at once, now or earlier."""
        return self._history.was_ready

    def wait(self) -> signal.Signals:
        """Block until SIGINT or SIGTERM arrives, and return it. It stops nothing: `stop` does. Call it from the main thread."""
        before = {number: signal.signal(number, self._on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            return self._signals.get()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def stop(self) -> list[str]:
        """Stop everything, last started first; returns the names of the programs that had to be killed."""
        self._ending.set()
        if self._control:
            self._control.close()
        if self._housekeeper:
            self._housekeeper.join()
        killed = self._supervisor.stop() if self._supervisor else []
        if self._lock is not None:
            (self._home / STATE_FILE).unlink(missing_ok=True)
        if self._guard:
            self._guard.release()
        if self._lock is not None:
            os.close(self._lock)
        self._supervisor = self._guard = self._lock = self._state = self._housekeeper = self._control = None
        return killed

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _take_home(self) -> None:
        if self._ephemeral:
            self._home = Path(tempfile.mkdtemp(prefix="spanfold-"))
        logs = self._home / "logs"
        self._home.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = lock_home(self._home)
        logs.mkdir(exist_ok=True)
        killed = last_supervisor(self._home)
        stop_leftovers(self._home)
        self._ending.clear()
        self._history = ProcessHistory(self._home)
        self._history.supervisor_started(killed)
        self._guard = self._new_guard()
        self._supervisor = Supervisor(logs, self._guard, self._history, self._publish)
        self._housekeeper = threading.Thread(target=self._keep_house, name="housekeeper", daemon=True)
        self._housekeeper.start()
        try:
            self._control = Control(self._home, self._restart)
        except OSError as error:  # not every file system has named pipes
            log.warning("`spanfold workers restart` won't work in %s: %s", self._home, error)

    def _new_guard(self) -> Guard:
        remove = [*self._own_postgres_folder(), self._home] if self._ephemeral else []
        held = [] if self._lock is None else [self._lock]
        return Guard(self._home / "logs" / "guard.log", self._on_guard_death, held=held, remove=remove)

    def _own_postgres_folder(self) -> list[Path]:
        return [] if self._postgres_dsn else [postgres_folder(self._home)]

    def _start_servers(self, progress: ProgressListener) -> None:
        servers = plan_servers(
            self._home, kafka=not self._kafka_bootstrap, postgres=not self._postgres_dsn, ports=self._ports
        )
        start_servers(servers, self._home / "logs", self._running_supervisor().start, progress)
        kafka, postgres = servers.kafka, servers.postgres
        self._state = StackState(
            home=self._home,
            kafka_bootstrap=kafka.bootstrap if kafka else self._kafka_bootstrap or "",
            postgres_dsn=postgres.dsn() if postgres else self._postgres_dsn or "",
            supervisor=Identity.of_this_process(),
            started_at=datetime.now(UTC).isoformat(timespec="seconds"),
            ports=servers.ports,
            psql=postgres.bin / "psql" if postgres else None,
            processes=self._running_supervisor().processes,
        )
        write_state(self._state)

    def _running_supervisor(self) -> Supervisor:
        if self._supervisor is None:
            raise RuntimeError("the stack is not started")
        return self._supervisor

    def _publish(self) -> None:
        """Bring the state, here and in stack.json, up to date with the children. On a full disk the file follows later."""
        with self._publishing:
            if self._state is None:
                return
            self._state = replace(self._state, processes=self._running_supervisor().processes)
            try:
                write_state(self._state)
            except OSError:
                self._unpublished = True
            else:
                self._unpublished = False

    def _restart(self, names: Sequence[str]) -> None:
        """Those of these programs that there are, in a thread of its own: to stop one takes seconds."""
        if self._state is None:
            return
        known = [name for name in names if name in self._state.processes]
        self._running_supervisor().restart(known)

    def _keep_house(self) -> None:
        """Rotate the logs, watch the room on the disks, and write what a full disk has delayed, until the stack ends."""
        disks = StackDisks(self._home)
        while not self._ending.wait(HOUSEKEEPING_S):
            with suppress(OSError):
                rotate_logs(self._home / "logs")
            self._history.save()
            if self._unpublished:
                self._publish()
            for warning in disks.news():
                log.warning("%s", warning)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._signals.put(signal.Signals(number))  # a SimpleQueue may be fed from a signal handler

    def _on_guard_death(self) -> None:
        """Start another guard: without one, a kill -9 of this process would leave the servers running."""
        dead = self._guard
        while not self._ending.wait(GUARD_PAUSE_S):
            try:
                guard = self._new_guard()
            except OSError:
                continue
            self._running_supervisor().watched_by(guard)
            self._guard = guard
            if dead:
                dead.forget()
            log.warning("the guard process died; started another one")
            return
