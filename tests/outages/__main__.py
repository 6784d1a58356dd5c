"""`python -m tests.outages`: one stack under load goes through one outage after the other.

After each of them: status shows what was wrong while it was, and nothing afterwards; every process is the same as before but for
those that the outage ends itself; OTLP has answered throughout; each acknowledged span is in the tables once. In between the
stack is stopped and started while a projection is suspended: it still is. In the end `spanfold verify` agrees. Exit code 1 if
anything differs.
"""

import time
import traceback
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.table import Table

from tests.outages.load import Load
from tests.outages.outages import OUTAGES, poison_fold
from tests.outages.poison import NAME, POISON
from tests.outages.scene import Scene

console: Final = Console()

UNANSWERED: Final = ("kafka_killed", "full_disk")
"""Outages in which OTLP may answer 503, and nothing else than that or 200."""


def main(only: Annotated[list[str] | None, typer.Option(help="these outages alone")] = None) -> None:
    """Run the outages against `spanfold up` under load."""
    scene, rows, failed = Scene(), list[tuple[Any, ...]](), False
    try:
        scene.up()
        _survives_down_and_up(scene)
        load = scene.new_load()
        for name in only or OUTAGES:
            if name == "full_disk" and scene.disk is None:
                rows.append((name, "skipped: only root can mount a file system", "", "", "", ""))
                continue
            console.print(f"{name}: {OUTAGES[name].__doc__}")
            row = _suffer(scene, load, name)
            failed = failed or row[1] != "well"
            rows.append(row)
        load.stop()
        if "lost_log" not in (only or OUTAGES):
            assert scene.shell("verify", "traces").returncode == 0
    finally:
        _print(rows)
        scene.close()
    raise typer.Exit(1 if failed else 0)


def _suffer(scene: Scene, load: Load, name: str) -> tuple[Any, ...]:
    load.begin()
    before, began = scene.pids(), time.monotonic()
    outcome = "well"
    try:
        ended = OUTAGES[name](scene, load)
        scene.until_well()
        scene.until_folded(load)
        changed = {one for one, pid in scene.pids().items() if pid != before.get(one)} - set(ended)
        assert not changed, f"these processes are not the same any more: {', '.join(sorted(changed))}"
        statuses = set(load.answers.statuses) - {200, *([503] if name in UNANSWERED else [])}
        assert not statuses, f"OTLP answered {statuses}"
        assert not load.answers.unanswered, f"requests without an answer: {dict(load.answers.unanswered)}"
    except Exception as error:
        outcome = f"{type(error).__name__}: {error}"
        console.print(traceback.format_exc(), style="red", markup=False)
    answers = load.answers
    return (
        name, outcome, f"{time.monotonic() - began:.0f}", dict(answers.statuses), f"{answers.slowest_s:.2f}",
        len(load.acknowledged),
    )  # fmt: skip


def _survives_down_and_up(scene: Scene) -> None:
    """A suspended projection is still suspended after the stack was stopped and started, and then resumed."""
    load = Load(scene.otlp_url)
    load.send("GET /before", POISON)
    scene.until_problem(f"projection {NAME} is suspended")
    assert scene.shell("down").returncode == 0
    scene.up()
    scene.until_problem(f"projection {NAME} is suspended")
    poison_fold(scene, Load(scene.otlp_url))
    (scene.packages / "repaired").unlink()
    assert scene.shell("workers", "restart").returncode == 0
    scene.until_well()


def _print(rows: list[tuple[Any, ...]]) -> None:
    table = Table("outage", "afterwards", "seconds", "answers of OTLP", "slowest s", "acknowledged spans so far")
    for row in rows:
        table.add_row(*map(str, row))
    console.print(table)


if __name__ == "__main__":
    typer.run(main)
