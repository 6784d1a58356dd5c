"""The command `spanfold`. Each command is a module here; errors become one line on standard error and an exit code.

| exit code | meaning                                                        |
|-----------|----------------------------------------------------------------|
| 0         | done                                                           |
| 1         | an unexpected failure, or a comparison differs                   |
| 2         | invalid usage or input                                         |
| 3         | invalid settings, topics or tables                             |
| 4         | Kafka or Postgres can't be reached: retry                      |
"""

import sys

from spanfold.language.errors import SpanfoldError
from spanfold.language.extras import check_installed


def main() -> None:
    """Run the command line; ends the process."""
    try:
        _run()
    except SpanfoldError as error:
        print(f"spanfold: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


def _run() -> None:
    try:
        from spanfold.cli.app import app

        app()
    except ModuleNotFoundError:
        check_installed("server", "the command `spanfold`")
        raise
