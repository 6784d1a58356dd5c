"""`spanfold demo`: a real application under load, and what Postgres knows of it afterwards."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from spanfold.bootstrap import running_stack
from spanfold.cli.demo_report import print_report
from spanfold.cli.options import AsJson, Home, sigterm_interrupts
from spanfold.cli.output import console, notice, notices, print_json
from spanfold.cli.progress import screen
from spanfold.demo.run import Outcome, run_demo
from spanfold.embedded.errors import ChildFailed
from spanfold.embedded.stack import EmbeddedStack
from spanfold.embedded.stack_state import read_state
from spanfold.language.errors import Misconfigured, SpanfoldError
from spanfold.language.extras import check_installed
from spanfold.language.progress import ProgressListener
from spanfold.language.settings import Settings
from spanfold.operations.installation import Installation, command_line, environment_settings
from spanfold.operations.stack import settings_of


class Differs(SpanfoldError):
    """The counts of the SDKs, the log and Postgres differ."""


def demo(
    seconds: Annotated[float, typer.Option(min=1, help="Load duration in seconds.")] = 15.0,
    spans: Annotated[
        int | None, typer.Option(min=1, help="Continue until this many spans are made.", show_default=False)
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Number of projectors, if the demo starts the stack.")] = 1,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the stack that the demo starts running until Ctrl-C.")
    ] = False,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Run a shop of three services under load, publish its OpenTelemetry spans, and query the result.

    Uses the stack that is running in this home, else starts one for the duration of the demo. Exit code 1 unless every
    span that the SDKs made is in the log once and in Postgres once, and every metric point and logged error in the log is
    in Postgres once.

    Example: spanfold demo --spans 20000 --json
    """
    check_installed("demo", "the demo's shop", besides="embedded")  # the servers may be running elsewhere
    chosen = environment_settings(home=home)
    with sigterm_interrupts(), screen() as progress, _stack(chosen, workers, progress) as (target, started):
        if waiting := target.to_be_rebuilt():
            start = command_line(target.settings.home, "up", "--detach")
            raise Misconfigured(f"{'; '.join(waiting)}, while `{start}` is running; or choose another --home")
        outcome = run_demo(target.settings, progress, seconds=seconds, spans=spans)
        if as_json:
            print_json(outcome.facts())
        else:
            _print(outcome, target.settings, ends=started is not None and not keep)
        if keep and started:
            notices().print("The stack keeps running until Ctrl-C.")
            started.wait()
    if different := outcome.differences():
        raise Differs("the counts differ: " + "; ".join(different))


@contextmanager
def _stack(
    chosen: Settings, workers: int, progress: ProgressListener
) -> Iterator[tuple[Installation, EmbeddedStack | None]]:
    """The stack that runs, or one that is started, which then comes along."""
    if read_state(chosen.home):
        yield Installation.of(chosen), None
        return
    with running_stack(chosen, workers=workers, progress=progress, notify=notice) as stack:
        if stack.unready:
            raise ChildFailed("; ".join(program.problem for program in stack.unready))
        yield Installation(settings_of(stack.state, chosen), stack.state), stack


def _print(outcome: Outcome, settings: Settings, *, ends: bool) -> None:
    screen, counts, served = console(), outcome.report.counts, outcome.served
    print_report(screen, outcome.report)
    screen.print(
        f"\n{served.requests:,} requests in {served.seconds:.1f} s "
        f"({served.requests / served.seconds:,.0f}/s): {counts['completed']:,} traces completed, {counts['failed']:,} failed"
    )
    screen.print(
        f"[bold]{outcome.spans_made:,}[/bold] spans made by the SDKs, [bold]{outcome.records.get('SpanRecorded', 0):,}[/bold] "
        f"records on the topic, [bold]{counts['spans']:,}[/bold] rows in spanfold.spans"
    )
    screen.print(
        f"{outcome.points:,} metric points and {outcome.errors:,} logged errors on their topics, "
        f"{counts['points']:,} rows in spanfold.metric_points and {counts['errors']:,} in spanfold.error_logs"
    )
    slowest = "SELECT trace_id, operation_name, duration_ms FROM traces ORDER BY duration_ms DESC LIMIT 5"
    screen.print(f"\nPostgres  {settings.postgres_dsn}", soft_wrap=True)
    if ends:
        screen.print(f"Continue  {command_line(settings.home, 'up', '--detach')}", soft_wrap=True)
    screen.print(f"Query     {command_line(settings.home, 'sql', slowest)}", soft_wrap=True)
