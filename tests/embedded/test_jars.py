"""Kafka's jars: locked, verified, resumed. A small Maven repository on this machine serves a jar of the tests' own."""

import hashlib
import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from spanfold.embedded import jar_downloads
from spanfold.embedded.errors import DownloadFailed, JarMismatch, MissingPart
from spanfold.embedded.jar_cache import fetch_jars
from spanfold.embedded.jars import LOCK_FILE, Jar, locked_jars

CONTENT = bytes(range(256)) * 5000
JAR = Jar("org.example.one:thing:1.2", hashlib.sha256(CONTENT).hexdigest(), len(CONTENT))


class Maven(ThreadingHTTPServer):
    """Serves `content` for every path, with ranges, and remembers what was asked."""

    content = CONTENT
    status = 200

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[tuple[str, str]] = []


class Handler(BaseHTTPRequestHandler):
    server: Maven

    def do_GET(self) -> None:
        wanted = self.headers.get("Range", "bytes=0-")
        self.server.asked.append((self.path, wanted))
        if self.server.status != 200:
            self.send_error(self.server.status)
            return
        start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        body = self.server.content[start:]
        self.send_response(206 if body else 416)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def maven(monkeypatch: pytest.MonkeyPatch) -> Iterator[Maven]:
    with Maven() as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        monkeypatch.setenv("SPANFOLD_MAVEN_MIRROR", f"http://127.0.0.1:{server.server_port}/maven2/")
        yield server
        server.shutdown()


def test_a_jar_comes_from_the_mirror_by_its_coordinate(maven: Maven, tmp_path: Path) -> None:
    arrived: list[int] = []
    fetch_jars([JAR], tmp_path, arrived.append)
    assert (tmp_path / "thing-1.2.jar").read_bytes() == CONTENT
    assert [path for path, _ in maven.asked] == ["/maven2/org/example/one/thing/1.2/thing-1.2.jar"]
    assert sum(arrived) == JAR.size


def test_a_jar_in_the_cache_is_not_fetched_again(maven: Maven, tmp_path: Path) -> None:
    fetch_jars([JAR], tmp_path)
    fetch_jars([JAR], tmp_path)
    assert len(maven.asked) == 1


def test_a_corrupted_jar_is_fetched_again(maven: Maven, tmp_path: Path) -> None:
    (tmp_path / JAR.filename).write_bytes(CONTENT[:-1] + b"?")
    fetch_jars([JAR], tmp_path)
    assert (tmp_path / JAR.filename).read_bytes() == CONTENT


def test_an_interrupted_download_resumes(maven: Maven, tmp_path: Path) -> None:
    (tmp_path / f"{JAR.filename}.part").write_bytes(CONTENT[:1000])
    arrived: list[int] = []
    fetch_jars([JAR], tmp_path, arrived.append)
    assert [wanted for _, wanted in maven.asked] == ["bytes=1000-"]
    assert sum(arrived) == JAR.size
    assert [path.name for path in tmp_path.glob("thing*")] == [JAR.filename]


def test_a_damaged_part_is_fetched_from_the_start(maven: Maven, tmp_path: Path) -> None:
    (tmp_path / f"{JAR.filename}.part").write_bytes(b"?" * 1000)
    arrived: list[int] = []
    fetch_jars([JAR], tmp_path, arrived.append)
    assert (tmp_path / JAR.filename).read_bytes() == CONTENT
    assert sum(arrived) == JAR.size


def test_a_jar_that_is_not_the_locked_one_is_refused(maven: Maven, tmp_path: Path) -> None:
    maven.content = b"something else"
    other = hashlib.sha256(maven.content).hexdigest()
    with pytest.raises(JarMismatch, match=rf"{JAR.coordinate} .* has SHA-256 {other}, but .* locks {JAR.sha256}"):
        fetch_jars([JAR], tmp_path)
    assert list(tmp_path.glob("thing*")) == []


def test_a_repository_without_the_jar_is_an_error_that_names_the_remedy(maven: Maven, tmp_path: Path) -> None:
    maven.status = 404
    with pytest.raises(DownloadFailed, match="SPANFOLD_MAVEN_MIRROR"):
        fetch_jars([JAR], tmp_path)
    assert len(maven.asked) == jar_downloads.ATTEMPTS


def test_the_lock_names_every_jar_once_and_no_host() -> None:
    locked = locked_jars()
    assert len({jar.filename for jar in locked}) == len(locked)
    assert all(len(jar.sha256) == 64 and jar.size > 0 for jar in locked)
    assert "://" not in LOCK_FILE.read_text()


def test_all_of_kafka_is_locked_at_one_version() -> None:
    groups = [jar.coordinate.split(":") for jar in locked_jars()]
    assert {version for group, _, version in groups if group == "org.apache.kafka"} == {"4.3.1"}


def test_the_lock_holds_the_coordinates_it_was_made_from() -> None:
    document = json.loads(LOCK_FILE.read_text())
    assert set(document["roots"]) <= {jar.coordinate for jar in locked_jars()}


def test_the_first_failure_ends_the_other_downloads(maven: Maven, tmp_path: Path) -> None:
    wrong = Jar("org.example.one:wrong:1.0", "0" * 64, len(CONTENT))
    others = [Jar(f"org.example.one:other{i}:1.0", JAR.sha256, JAR.size) for i in range(50)]
    with pytest.raises(JarMismatch, match="wrong"):
        fetch_jars([wrong, *others], tmp_path)
    assert len(maven.asked) < 51


def test_without_what_downloads_jars_it_is_said_what_to_install(
    monkeypatch: pytest.MonkeyPatch, maven: Maven, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "jgo", None)
    with pytest.raises(MissingPart, match=r"needs jgo and requests.*pip install 'spanfold\[embedded\]'"):
        fetch_jars([JAR], tmp_path)
    (tmp_path / JAR.filename).write_bytes(CONTENT)
    fetch_jars([JAR], tmp_path)
    assert maven.asked == []
