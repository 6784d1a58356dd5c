"""Where a process of spanfold serves HTTP: HOME/workers/<pid>.url holds its URL while it runs."""

import atexit
import os
from pathlib import Path
from typing import Final

FOLDER: Final = "workers"


def leave_url(home: Path, url: str) -> None:
    """Write the URL at which this process serves; the file is removed when it ends, and those of killed processes are removed
    here.
    """
    folder = home / FOLDER
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for other in folder.glob("*.url"):
        if not _runs(int(other.stem)):
            other.unlink(missing_ok=True)
    own = url_file(home, os.getpid())
    own.write_text(url)
    atexit.register(own.unlink, missing_ok=True)


def url_file(home: Path, pid: int) -> Path:
    """The file that holds the URL of that process."""
    return home / FOLDER / f"{pid}.url"


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
