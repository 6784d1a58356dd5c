"""The package's extras: what each brings, what of it is missing here, and what to install."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, distribution, requires
from typing import Final

from spanfold.language.errors import Misconfigured

_NAME: Final = re.compile(r"[\w.-]+")
_EXTRA: Final = re.compile(r"""extra\s*==\s*['"]([\w-]+)['"]""")


@contextmanager
def needs(extra: str, what: str) -> Iterator[None]:
    """Around imports of packages that the extra brings: an ImportError says that `what` needs it, and how to install it."""
    try:
        yield
    except ImportError as error:
        if _is_ours(error):
            raise
        raise ImportError(
            f"{what} needs the extra {extra}: {install(extra)} ({error})", name=error.name, path=error.path
        ) from error


def check_installed(extra: str, what: str, *, besides: str = "") -> None:
    """Misconfigured names the packages of the extra that `what` needs and that are not installed here. It does not need those
    that the extra `besides` brings too.
    """
    not_needed = missing_of(besides)
    if missing := [name for name in missing_of(extra) if name not in not_needed]:
        names = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        raise Misconfigured(f"{what} needs packages that are not installed ({names}): {install(extra)}")


def install(extra: str) -> str:
    """How the extra is installed."""
    return f"pip install 'spanfold[{extra}]'"


def brought_by(extra: str | None) -> list[str]:
    """The requirements of the extra and of those that it includes; for None those of the core."""
    return [line for line in requires("spanfold") or [] if extra == ((match := _EXTRA.search(line)) and match[1])]


def missing_of(extra: str) -> list[str]:
    """The names of the packages that the extra brings and that are not installed here."""
    names = [match[0] for line in brought_by(extra) if (match := _NAME.match(line))]
    return [name for name in names if not _is_installed(name)]


def _is_installed(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True


def _is_ours(error: ImportError) -> bool:
    return (error.name or "").partition(".")[0] == "spanfold"
