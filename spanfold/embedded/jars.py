"""The jars of the embedded Kafka: locked, downloaded, verified, cached.

kafka.lock.json names each jar by its Maven coordinate, SHA-256 and size in bytes, and names no host. Jars come from
Maven Central, or from the mirror whose base URL is in SPANFOLD_MAVEN_MIRROR, into `$XDG_CACHE_HOME/spanfold/jars`
(else `~/.cache/spanfold/jars`). Every jar is hashed before each use; one that differs is fetched again.
"""

import fcntl
import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import jgo.constants
import requests
from jgo.util import http

from spanfold.embedded.errors import DownloadFailed, JarMismatch

LOCK_FILE: Final = Path(__file__).with_name("kafka.lock.json")
CHUNK_BYTES: Final = 256 * 1024
DOWNLOADS_AT_ONCE: Final = 6
ATTEMPTS: Final = 3
TIMEOUT_S: Final = 30

Advance = Callable[[int], None]
"""Told the bytes that arrived, from several threads; negative when some have to be fetched again."""


@dataclass(frozen=True, slots=True)
class Jar:
    """One locked jar. `coordinate` is group:artifact:version; `size` is in bytes."""

    coordinate: str
    sha256: str
    size: int

    @property
    def filename(self) -> str:
        """The name that Maven gives the file."""
        _, artifact, version = self.coordinate.split(":")
        return f"{artifact}-{version}.jar"

    @property
    def url(self) -> str:
        """Where the Maven repository in use serves it."""
        group, artifact, version = self.coordinate.split(":")
        return f"{maven_url()}/{group.replace('.', '/')}/{artifact}/{version}/{self.filename}"


def locked_jars() -> list[Jar]:
    """The jars of kafka.lock.json, in its order."""
    return [Jar(**jar) for jar in json.loads(LOCK_FILE.read_text())["jars"]]


def maven_url() -> str:
    """The base URL of the Maven repository in use, without a slash at its end."""
    return (os.environ.get("SPANFOLD_MAVEN_MIRROR") or jgo.constants.MAVEN_CENTRAL_URL).rstrip("/")


def jar_cache() -> Path:
    """The folder in which this user's jars are kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "spanfold" / "jars"


def is_intact(jar: Jar, path: Path) -> bool:
    """Whether `path` holds exactly the locked bytes."""
    return path.is_file() and path.stat().st_size == jar.size and sha256(path) == jar.sha256


def sha256(path: Path) -> str:
    """The file's SHA-256 in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def missing_jars(jars: list[Jar], cache: Path) -> list[Jar]:
    """Those jars that the cache doesn't hold intact."""
    with ThreadPoolExecutor() as pool:
        intact = list(pool.map(lambda jar: is_intact(jar, cache / jar.filename), jars))
    return [jar for jar, good in zip(jars, intact, strict=True) if not good]


def fetch_jars(jars: list[Jar], cache: Path, advance: Advance = lambda _: None) -> None:
    """Make sure that `cache` holds every jar intact.

    Safe to call from several processes at once: the second waits for the first. Raises JarMismatch, or
    DownloadFailed after a few attempts; a later call resumes then.
    """
    cache.mkdir(parents=True, exist_ok=True)
    with _locked(cache / ".lock"):
        _download_all(missing_jars(jars, cache), cache, advance)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _download_all(jars: list[Jar], cache: Path, advance: Advance) -> None:
    """Several at a time. The first failure, or Ctrl-C, ends the others at their next chunk."""
    abandoned = threading.Event()

    def advance_or_end(count: int) -> None:
        if abandoned.is_set():
            raise DownloadFailed("the download was interrupted; the next try resumes")
        advance(count)

    with ThreadPoolExecutor(DOWNLOADS_AT_ONCE) as pool:
        try:
            for done in [pool.submit(_download, jar, cache, advance_or_end) for jar in jars]:
                done.result()
        except BaseException:
            abandoned.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _download(jar: Jar, cache: Path, advance: Advance) -> None:
    part = cache / f"{jar.filename}.part"
    if part.exists():
        # What an interrupted run left is worth one try; its end may be damaged.
        advance(part.stat().st_size)
        _transfer_with_retries(jar, part, advance)
        if not is_intact(jar, part):
            advance(-part.stat().st_size)
            part.unlink()
    if not part.exists():
        _transfer_with_retries(jar, part, advance)
    _accept(jar, part, cache / jar.filename)


def _transfer_with_retries(jar: Jar, part: Path, advance: Advance) -> None:
    for attempt in range(1, ATTEMPTS + 1):
        try:
            _transfer(jar.url, part, advance)
            return
        except requests.RequestException as error:
            if attempt == ATTEMPTS:
                raise DownloadFailed(
                    f"{jar.coordinate} could not be downloaded from {jar.url}: {error}. Check the network, or"
                    " name a Maven mirror's base URL in SPANFOLD_MAVEN_MIRROR; the next try resumes."
                ) from error


def _transfer(url: str, part: Path, advance: Advance) -> None:
    """Append to `part` what it lacks of `url`; a server that knows no ranges sends it whole again."""
    have = part.stat().st_size if part.exists() else 0
    headers = {"Range": f"bytes={have}-", "Accept-Encoding": "identity"}
    with http.get(url, stream=True, timeout=TIMEOUT_S, headers=headers) as response:
        if response.status_code == requests.codes.requested_range_not_satisfiable:
            return  # nothing is lacking; the checksum decides
        response.raise_for_status()
        resumes = response.status_code == requests.codes.partial_content
        advance(0 if resumes else -have)
        with part.open("ab" if resumes else "wb") as file:
            for chunk in response.iter_content(CHUNK_BYTES):
                file.write(chunk)
                advance(len(chunk))


def _accept(jar: Jar, part: Path, target: Path) -> None:
    """Rename a verified download into place; remove one that isn't what was locked."""
    if not is_intact(jar, part):
        actual = sha256(part)
        part.unlink()
        raise JarMismatch(
            f"{jar.coordinate} from {jar.url} has SHA-256 {actual}, but {LOCK_FILE.name} locks {jar.sha256}."
            " The file was removed; check what SPANFOLD_MAVEN_MIRROR, or a proxy on the way, serves."
        )
    part.replace(target)
