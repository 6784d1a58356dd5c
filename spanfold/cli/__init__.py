"""The command `spanfold`. Each command is a module here; errors become one line on standard error and an exit code.

| exit code | meaning                                                        |
|-----------|----------------------------------------------------------------|
| 0         | done                                                           |
| 1         | an unexpected failure, or a comparison differs                   |
| 2         | invalid usage or input                                         |
| 3         | invalid settings, topics or tables                             |
| 4         | Kafka or Postgres can't be reached: retry                      |
"""

import errno
import sys
from typing import Final

from spanfold.language.errors import Misconfigured, SpanfoldError
from spanfold.language.extras import check_installed

UNUSABLE: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ENOSPC, errno.EDQUOT})
"""What the operating system says of a file or folder that this user can't use."""


def main() -> None:
    """Run the command line; ends the process."""
    try:
        _run()
    except SpanfoldError as error:
        print(f"spanfold: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:
        if error.errno not in UNUSABLE or error.filename is None:
            raise
        print(
            f"spanfold: {error.filename} can't be used: {error.strerror}. SPANFOLD_HOME or --home names another folder",
            file=sys.stderr,
        )
        sys.exit(Misconfigured.exit_code)


def _run() -> None:
    try:
        from spanfold.cli.app import app

        app()
    except ModuleNotFoundError:
        check_installed("server", "the command `spanfold`")
        raise
