"""Downloads jars: resumed, retried, verified, several at a time. Imports what only the `embedded` extra installs."""

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import jgo.constants
import requests
from jgo.util import http

from spanfold.embedded.errors import DownloadFailed, JarMismatch
from spanfold.embedded.jars import LOCK_FILE, Jar, is_intact, sha256

CHUNK_BYTES: Final = 256 * 1024
DOWNLOADS_AT_ONCE: Final = 6
ATTEMPTS: Final = 3
TIMEOUT_S: Final = 30


Advance = Callable[[int], None]


def maven_url() -> str:
    """The base URL of the Maven repository in use, without a slash at its end."""
    return (os.environ.get("SPANFOLD_MAVEN_MIRROR") or jgo.constants.MAVEN_CENTRAL_URL).rstrip("/")


def _url(jar: Jar) -> str:
    """Where the Maven repository in use serves it."""
    group, artifact, version = jar.coordinate.split(":")
    return f"{maven_url()}/{group.replace('.', '/')}/{artifact}/{version}/{jar.filename}"


def download_all(jars: list[Jar], cache: Path, advance: Advance) -> None:
    """Download them into `cache`, several at a time. The first failure, or Ctrl-C, ends the others at their next chunk.

    Raises JarMismatch or DownloadFailed. The caller holds the cache's lock.
    """
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
        # An interrupted run left this: resume it once; its end may be damaged.
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
            _transfer(_url(jar), part, advance)
            return
        except requests.RequestException as error:
            if attempt == ATTEMPTS:
                raise DownloadFailed(
                    f"{jar.coordinate} could not be downloaded from {_url(jar)}: {error}. Check the network, or"
                    " name a Maven mirror's base URL in SPANFOLD_MAVEN_MIRROR; the next try resumes."
                ) from error


def _transfer(url: str, part: Path, advance: Advance) -> None:
    """Append the missing rest of `url` to `part`; a server without range requests sends all of it again."""
    have = part.stat().st_size if part.exists() else 0
    headers = {"Range": f"bytes={have}-", "Accept-Encoding": "identity"}
    with http.get(url, stream=True, timeout=TIMEOUT_S, headers=headers) as response:
        if response.status_code == requests.codes.requested_range_not_satisfiable:
            return  # nothing is missing; the checksum decides
        response.raise_for_status()
        resumes = response.status_code == requests.codes.partial_content
        advance(0 if resumes else -have)
        with part.open("ab" if resumes else "wb") as file:
            for chunk in response.iter_content(CHUNK_BYTES):
                file.write(chunk)
                advance(len(chunk))


def _accept(jar: Jar, part: Path, target: Path) -> None:
    """Rename a verified download into place; remove one that differs from the lock."""
    if not is_intact(jar, part):
        actual = sha256(part)
        part.unlink()
        raise JarMismatch(
            f"{jar.coordinate} from {_url(jar)} has SHA-256 {actual}, but {LOCK_FILE.name} locks {jar.sha256}."
            " The file was removed; check what SPANFOLD_MAVEN_MIRROR, or a proxy on the way, serves."
        )
    part.replace(target)
