"""Where the processes of a stack serve HTTP: each leaves its URL in the home while it runs (http/process_urls.py)."""

from pathlib import Path

from spanfold.embedded.process_identity import Identity
from spanfold.embedded.stack_state import StackState
from spanfold.http.process_urls import url_file


def process_urls(state: StackState) -> dict[str, str]:
    """The URL of each process of the stack that serves by now, without a slash at its end, by the program's name."""
    urls = {name: url_of(state.home, identity) for name, identity in state.processes.items()}
    return {name: url for name, url in urls.items() if url}


def url_of(home: Path, process: Identity) -> str | None:
    """The URL that this process left, if it serves HTTP."""
    left = url_file(home, process.pid)
    try:
        # pids are used again: what was left before the process began is another's
        return left.read_text() if left.stat().st_mtime >= process.created - 1 else None
    except FileNotFoundError:
        return None
