"""What can go wrong with the embedded stack, and whose turn it is.

SpanfoldError
  Misconfigured
    MissingPart      the `embedded` extra, Java or a user is missing: install or name one
    JarMismatch      a downloaded jar is not the locked one: the mirror is wrong
    HomeInUse        another stack runs on this home: use it or stop it
  LogUnavailable
    DownloadFailed   the jars can't be fetched: worth retrying
  ChildFailed        a child program did not start, or kept dying: its log says why
"""

from spanfold.language.errors import LogUnavailable, Misconfigured, SpanfoldError


class MissingPart(Misconfigured):
    """Something that the embedded stack is made of isn't on this machine."""


class JarMismatch(Misconfigured):
    """A jar's SHA-256 differs from the lock's; the file was removed."""


class HomeInUse(Misconfigured):
    """The home is locked by a running stack; the message names its pid."""


class DownloadFailed(LogUnavailable):
    """A jar could not be downloaded; what came of it is kept and the next try resumes there."""


class ChildFailed(SpanfoldError):
    """A child program did not become ready, or kept dying. The message ends with its log's tail."""

    exit_code = 4
