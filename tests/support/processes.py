"""Programs as processes of their own, forked by the forkserver in a fraction of the time that Python needs to start."""

import atexit
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import IO, Final

import pytest

from tests.support.forkserver import Order
from tests.support.servers import ROOT
from tests.support.waiting import until

SPANFOLD: Final = ("-m", "spanfold")
"""What Python runs to be the command `spanfold`."""

COMMAND_S: Final = 280.0
"""Longer than any command takes on a busy machine."""

Finished = subprocess.CompletedProcess[str]


@pytest.fixture(scope="session")
def forkserver() -> "Forkserver":
    """Whoever takes this, itself or through another fixture, starts processes. It is started with the first of them."""
    return forks()


def forks() -> "Forkserver":
    """This process's forkserver, of the Python that runs the tests."""
    return forks_of(sys.executable, "")


@cache
def forks_of(python: str, pythonpath: str) -> "Forkserver":
    """Another one of this process: of that Python, which also has the packages that PYTHONPATH adds. What is installed when it
    starts is what its programs have.
    """
    return Forkserver(python, pythonpath)


class Forkserver:
    """The process of forkserver.py, from its start until this process ends."""

    def __init__(self, python: str, pythonpath: str) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="spanfold-test-forks-"))
        self._socket = self._folder / "socket"
        self._process = subprocess.Popen(
            [python, "-m", "tests.support.forkserver", self._socket],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": pythonpath},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,  # no terminal: some modules look when imported
        )
        atexit.register(self._end)

    def connect(self) -> socket.socket:
        """A connection for one program."""
        client = socket.socket(socket.AF_UNIX)

        def is_connected() -> bool:
            assert self._process.poll() is None, f"the forkserver ended with {self._process.returncode}"
            return client.connect_ex(str(self._socket)) == 0

        until(is_connected, "the forkserver's socket")
        return client

    def _end(self) -> None:
        self._process.communicate()  # the end of its standard input ends it
        shutil.rmtree(self._folder, ignore_errors=True)


class Program:
    """A program that runs, with what subprocess.Popen offers for it. `argv` is Python's: `-m module …` or `-c code …`."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        stdout: IO[bytes],
        stderr: IO[bytes],
        stdin: IO[bytes] | None = None,
        cwd: Path | None = None,
        python: str | None = None,
    ) -> None:
        self.args = argv
        self.returncode: int | None = None
        self._connection = forks_of(python or sys.executable, env.get("PYTHONPATH", "")).connect()
        self._send(Order(argv, dict(env), str(cwd or Path.cwd())), stdin, stdout, stderr)
        self.pid = self._number(COMMAND_S)

    def _send(self, order: Order, stdin: IO[bytes] | None, stdout: IO[bytes], stderr: IO[bytes]) -> None:
        text = json.dumps(asdict(order)).encode()
        with open(os.devnull, "rb") as nothing:
            streams = [stream.fileno() for stream in (stdin or nothing, stdout, stderr)]
            socket.send_fds(self._connection, [len(text).to_bytes(4, "big")], streams)
        self._connection.sendall(text)

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def wait(self, timeout: float = COMMAND_S) -> int:
        """The exit code; subprocess.TimeoutExpired when it still runs after so many seconds."""
        if self.returncode is None:
            self.returncode = self._number(timeout)
            self._connection.close()
        return self.returncode

    def _number(self, timeout: float) -> int:
        """The next number that the forkserver tells; it writes a line at once."""
        if not select.select([self._connection], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired(self.args, timeout)
        line = b""
        while not line.endswith(b"\n"):
            received = self._connection.recv(1)
            assert received, "the forkserver has ended"
            line += received
        return int(line)

    def send_signal(self, number: signal.Signals) -> None:
        """Does nothing once it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Captured(Program):
    """A program whose output is kept until it has ended."""

    def __init__(
        self,
        argv: Sequence[str],
        env: Mapping[str, str],
        *,
        stdin: str = "",
        cwd: Path | None = None,
        python: str | None = None,
    ) -> None:
        self._out, self._err = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115  # as long as this
        with tempfile.TemporaryFile() as given:
            given.write(stdin.encode())
            given.seek(0)
            super().__init__(argv, env=env, stdin=given, stdout=self._out, stderr=self._err, cwd=cwd, python=python)

    def finish(self, timeout_s: float = COMMAND_S) -> Finished:
        """Wait for its end, and return what it wrote. A program that takes longer is killed, and fails the test."""
        try:
            code = self.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            self.wait()
            raise
        return Finished(list(self.args), code, _text(self._out), _text(self._err))


def run(
    argv: Sequence[str],
    env: Mapping[str, str],
    *,
    stdin: str = "",
    cwd: Path | None = None,
    timeout_s: float = COMMAND_S,
) -> Finished:
    """Run the program to its end, and return what it wrote."""
    return Captured(argv, env, stdin=stdin, cwd=cwd).finish(timeout_s)


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode()
