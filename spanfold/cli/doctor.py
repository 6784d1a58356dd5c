"""`spanfold doctor`: is everything here that spanfold needs, and if not, what to do."""

from collections.abc import Sequence
from typing import Final

import typer
from rich.text import Text

from spanfold.cli.options import AsJson, Home, installation
from spanfold.cli.output import console, print_json, table
from spanfold.http.json_results import plain
from spanfold.operations.doctor import Check, CheckState, diagnose

CHECK_FAILED: Final = 3
STYLES: Final = {CheckState.OK: "green", CheckState.WARN: "yellow", CheckState.FAIL: "bold red"}


def doctor(home: Home = None, as_json: AsJson = False) -> None:
    """Check this machine and explain how to fix problems.

    Each check reports ok, warn or fail. Nothing is changed. Exit code 3 if a check failed, else 0.

    Example: spanfold doctor --json | jq '.[] | select(.state != "ok")'
    """
    checks = diagnose(installation(home))
    if as_json:
        print_json(plain(checks))
    else:
        _print(checks)
    raise typer.Exit(CHECK_FAILED if any(check.state is CheckState.FAIL for check in checks) else 0)


def _print(checks: Sequence[Check]) -> None:
    rows = [
        (
            Text(check.state, style=STYLES[check.state]),
            check.name,
            f"{check.finding}\n→ {check.advice}" if check.advice else check.finding,
        )
        for check in checks
    ]
    console().print(table(("", "", ""), rows))
