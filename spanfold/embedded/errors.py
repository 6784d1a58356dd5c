"""What can go wrong with the embedded stack. Exit codes and the rest of the tree: spanfold/language/errors.py."""

from pathlib import Path

from spanfold.language.errors import LogUnavailable, Misconfigured, SpanfoldError


class MissingPart(Misconfigured):
    """A part of the embedded stack is missing on this machine: the `embedded` extra, Java or an unprivileged user."""


class JarMismatch(Misconfigured):
    """A jar's SHA-256 differs from the lock's; the file was removed."""


class HomeInUse(Misconfigured):
    """The home is locked by a running stack; the message names its pid."""


class DownloadFailed(LogUnavailable):
    """A jar could not be downloaded; the part that arrived is kept, and the next try resumes there."""


class ChildFailed(SpanfoldError):
    """A server did not become ready. The message ends with its log's tail."""

    exit_code = 4


def unusable_home(home: Path, error: OSError) -> Misconfigured:
    """The error of a home that can't be written to."""
    where = f" ({error.filename})" if error.filename else ""
    return Misconfigured(f"{home} can't be used as the home: {error.strerror or error}{where}. Choose another --home")
