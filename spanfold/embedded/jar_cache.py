"""The cache of Kafka's jars: `$XDG_CACHE_HOME/spanfold/jars`, else `~/.cache/spanfold/jars`.

What it lacks comes from Maven Central, or from the mirror whose base URL is in SPANFOLD_MAVEN_MIRROR. Every jar is hashed before
each use; one that differs is fetched again.
"""

import fcntl
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from spanfold.embedded.errors import MissingPart
from spanfold.embedded.jars import Jar, is_intact

DOWNLOADED_WITH: Final = ("jgo", "requests")
"""What jar_downloads.py imports."""

Advance = Callable[[int], None]
"""Called with the bytes that arrived, from several threads; negative when some have to be fetched again."""


def jar_cache() -> Path:
    """The folder in which this user's jars are kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "spanfold" / "jars"


def missing_jars(jars: list[Jar], cache: Path) -> list[Jar]:
    """Those jars that the cache doesn't hold intact."""
    with ThreadPoolExecutor() as pool:
        intact = list(pool.map(lambda jar: is_intact(jar, cache / jar.filename), jars))
    return [jar for jar, good in zip(jars, intact, strict=True) if not good]


def fetch_jars(jars: list[Jar], cache: Path, advance: Advance = lambda _: None) -> None:
    """Make sure that `cache` holds every jar intact.

    Safe to call from several processes at once: the second waits for the first. Raises JarMismatch, DownloadFailed
    after a few attempts (a later call resumes then), or MissingPart when what downloads is not installed.
    """
    cache.mkdir(parents=True, exist_ok=True)
    with _locked(cache / ".lock"):
        if missing := missing_jars(jars, cache):
            _download_all(missing, cache, advance)


def can_download() -> bool:
    """Whether the packages are installed that jars are downloaded with."""
    return all(map(find_spec, DOWNLOADED_WITH))


def _download_all(jars: list[Jar], cache: Path, advance: Advance) -> None:
    if not can_download():
        raise MissingPart(
            f"Kafka's jars have to be downloaded, which needs {' and '.join(DOWNLOADED_WITH)}. Install them (pip install "
            "'spanfold[embedded]'), or name an existing server in SPANFOLD_KAFKA_BOOTSTRAP."
        )
    # imported here: it needs the `embedded` extra, and everything else works without
    from spanfold.embedded.jar_downloads import download_all

    download_all(jars, cache, advance)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
