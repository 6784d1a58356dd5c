"""A process that has imported all of spanfold, and forks into the programs that tests start.

A real `spanfold …` imports for a second or two before it does anything. A fork of this process begins where those imports end.
Otherwise it is what Python would have started: a process in a session of its own, with the argv, the environment, the folder and
the standard streams that its order names, default signals and nothing cached. Only its modules are not taken down at the end:
that would take longer than most commands. See processes.py for the other end.

Each connection to the socket is one program. The client sends its three standard streams with the length of the order in four
bytes, then the order as JSON. It gets a line with the pid, and another with the exit code (negative for a signal) once the
program has ended. At the end of this process's standard input all programs that still run are killed.
"""

import atexit
import ctypes
import gc
import json
import os
import pkgutil
import random
import runpy
import selectors
import signal
import socket
import sys
import threading
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Final, NamedTuple, NoReturn

STREAMS: Final = 3
PR_SET_PDEATHSIG: Final = 1

LAZY: Final = (
    "aiokafka", "alembic.command", "alembic.runtime.migration", "faust.app.base", "faust.transport.drivers.aiokafka",
    "sqlalchemy.dialects.postgresql.psycopg", "uvicorn.protocols.http.h11_impl",
)  # fmt: skip
"""What spanfold's dependencies import when they are first used."""

NOT_IMPORTED: Final = ("__main__", "spanfold.migrations", "spanfold.demo")
"""Alembic runs the modules of migrations itself, and the demo's dependencies are an extra."""


@dataclass(frozen=True)
class Order:
    """What a program is: its argv (`-m module …` or `-c code …`), its environment and its working folder."""

    argv: Sequence[str]
    env: Mapping[str, str]
    cwd: str


class Accepted(NamedTuple):
    """An order and the standard streams that came with it."""

    order: Order
    streams: Sequence[int]


def main(path: str) -> None:
    """Serve on the socket at `path`. In a fork this goes on as the program that was ordered."""
    preload()
    accepted = Forkserver(path).serve()
    become(accepted)
    try:
        run(accepted.order.argv)
    except SystemExit as end:
        leave(end.code)
    leave(0)


def leave(code: object) -> NoReturn:
    """End as the interpreter does, but leave the modules to the kernel."""
    if isinstance(code, str):
        print(code, file=sys.stderr)
    threading._shutdown()  # type: ignore[attr-defined]  # waits for the threads that are no daemons
    atexit._run_exitfuncs()
    sys.stdout.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


def preload() -> None:
    """Import everything, and keep the collector from touching (hence copying) it in each fork."""
    import spanfold

    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # forks must not find threads
    for module in pkgutil.walk_packages(spanfold.__path__, "spanfold."):
        if not any(name in module.name for name in NOT_IMPORTED):
            import_module(module.name)
    for name in LAZY:
        import_module(name)
    gc.collect()
    gc.freeze()


class Forkserver:
    """Forks when it is asked to, and tells who asked how that ended."""

    def __init__(self, path: str) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen()
        self._clients: dict[int, socket.socket] = {}
        self._selector = selectors.DefaultSelector()
        self._wakeup, signalled = socket.socketpair()
        signalled.setblocking(False)
        self._signalled = signalled
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(signalled.fileno(), warn_on_full_buffer=False)
        for source in (self._listener, self._wakeup, sys.stdin.buffer.fileno()):
            self._selector.register(source, selectors.EVENT_READ)

    def serve(self) -> Accepted:
        """Returns in each fork; in this process never: it ends with its standard input."""
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._wakeup:
                    self._wakeup.recv(4096)
                    self._reap()
                elif key.fileobj is self._listener:
                    if accepted := self._fork(self._listener.accept()[0]):
                        return accepted
                else:
                    self._end()

    def _fork(self, client: socket.socket) -> Accepted | None:
        """What was ordered, in the fork; None in this process."""
        accepted = receive(client)
        pid = os.fork()
        if pid == 0:
            self._forget()
            client.close()
            return accepted
        for stream in accepted.streams:
            os.close(stream)
        self._clients[pid] = client
        tell(client, pid)
        return None

    def _forget(self) -> None:
        """Let a fork have nothing of this."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._selector.close()
        for other in (self._listener, self._wakeup, self._signalled, *self._clients.values()):
            other.close()

    def _reap(self) -> None:
        while self._clients:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            with self._clients.pop(pid) as client:
                tell(client, os.waitstatus_to_exitcode(status))

    def _end(self) -> None:
        for pid in self._clients:
            os.kill(pid, signal.SIGKILL)
        os._exit(0)


def tell(client: socket.socket, number: int) -> None:
    """One line. Who no longer listens need not know."""
    try:
        client.sendall(b"%d\n" % number)
    except OSError:
        return


def receive(client: socket.socket) -> Accepted:
    """The order that a client sends."""
    head, streams, _, _ = socket.recv_fds(client, 4, STREAMS)
    length = int.from_bytes(head, "big")
    with client.makefile("rb") as reader:
        return Accepted(Order(**json.loads(reader.read(length))), streams)


def become(accepted: Accepted) -> None:
    """Make this process what Python's start would have made of the order."""
    order, streams = accepted
    os.setsid()
    end_with_parent()
    for target, stream in enumerate(streams):
        os.dup2(stream, target)
        os.close(stream)
    sys.stdin, sys.stdout = open(0, closefd=False), open(1, "w", closefd=False)  # noqa: SIM115  # as long as the process
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr  # type: ignore[misc]
    os.chdir(order.cwd)
    os.environ.clear()
    os.environ.update(order.env)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    random.seed()
    forget_caches()


def end_with_parent() -> None:
    """Have the kernel kill this process when the forkserver ends, however that comes; only Linux offers it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def forget_caches() -> None:
    """What was read from the environment is read again."""
    from spanfold.language.settings import settings

    settings.cache_clear()


def run(argv: Sequence[str]) -> None:
    """Run what Python would run for these arguments."""
    kind, what, *words = argv
    if kind == "-m":
        sys.argv = [what, *words]
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        assert kind == "-c", argv
        sys.argv = ["-c", *words]
        module = types.ModuleType("__main__")
        sys.modules["__main__"] = module
        exec(compile(what, "<string>", "exec"), module.__dict__)  # noqa: S102  # as `python -c` does


if __name__ == "__main__":
    main(sys.argv[1])
