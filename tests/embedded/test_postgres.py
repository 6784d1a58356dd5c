"""Postgres as root: whom it runs as, and from where."""

import subprocess
from pathlib import Path

import pytest

from spanfold.embedded import postgres
from spanfold.embedded.errors import MissingPart
from spanfold.embedded.postgres import find_server, postgres_folder, unprivileged_user


@pytest.fixture
def as_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Decide as root would, in a system folder of the test's own; returns that folder."""
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr(postgres, "SYSTEM_FOLDER", tmp_path / "system")
    return tmp_path / "system"


@pytest.mark.parametrize("name", ["root", "0", "nobody-of-that-name", "3999999999"])
def test_postgres_runs_as_an_unprivileged_user_of_the_machine(
    as_root: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("SPANFOLD_POSTGRES_USER", name)
    with pytest.raises(MissingPart, match=f"'{name}' is not an unprivileged user.*SPANFOLD_POSTGRES_USER"):
        unprivileged_user()


def test_root_keeps_the_data_where_the_other_user_can_reach_it(as_root: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    folder = postgres_folder(home)
    assert folder.parent == as_root
    assert folder == (home / "postgres").resolve() == postgres_folder(home)
    assert home.stat().st_mode & 0o777 == 0o700


def test_binaries_that_the_other_user_cannot_run_are_copied(
    as_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "_runs", lambda *_: False)
    home = tmp_path / "home"
    home.mkdir()
    server = find_server(home, 5432)
    assert as_root in server.bin.parents
    for program in ("postgres", "initdb", "psql"):
        version = subprocess.run([server.bin / program, "--version"], capture_output=True, text=True, check=True)
        assert "(PostgreSQL) 18" in version.stdout
    modes = {path.stat().st_mode & 0o055 for path in (server.bin, *server.bin.iterdir())}
    assert modes == {0o055}
    assert find_server(home, 5432) == server


def test_an_ordinary_user_has_all_of_it_at_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    server = find_server(tmp_path, 5432)
    assert server.data == tmp_path / "postgres" / "data"
    assert server.user is None
    assert server.dsn() == "postgresql://spanfold@127.0.0.1:5432/spanfold"
