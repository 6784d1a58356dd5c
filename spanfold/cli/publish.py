"""`spanfold publish`: one event from flags, or many from JSON lines."""

import sys
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.progress import Progress, SpinnerColumn, TaskProgressColumn, TextColumn

from spanfold.cli.options import AsJson, Home, installation
from spanfold.cli.output import console, notice, notices, print_result
from spanfold.language.errors import InvalidInput
from spanfold.language.event_json import PUBLISHABLE, event_from_json
from spanfold.language.events import Event, LogRecorded, MetricUpdated
from spanfold.language.severities import severity_number
from spanfold.language.times import now_us
from spanfold.operations.publishing import PublishReport, events_of_lines, parsed, publish_events

SOURCE: Final = "spanfold-cli"
MOST_NAMED: Final = 20
"""Records that are not shown."""

SILENT_S: Final = 1.0
"""How long standard input may be silent before the command says what it waits for."""

_Text = str | None


def publish(
    file: Annotated[
        Path | None, typer.Argument(help="JSON lines, one event per line; - is standard input.", show_default=False)
    ] = None,
    event_type: Annotated[_Text, typer.Option("--type", help=", ".join(PUBLISHABLE))] = None,
    trace_id: Annotated[_Text, typer.Option("--trace-id", help="Trace id.")] = None,
    aggregate_id: Annotated[
        _Text, typer.Option(help="Aggregate id: the trace id, or a metric's series. Default: derived from the event.")
    ] = None,
    at: Annotated[_Text, typer.Option("--at", help="occurred_at, RFC 3339.")] = None,
    event_id: Annotated[_Text, typer.Option(help="A UUID. Default: derived from the event.")] = None,
    source: Annotated[str, typer.Option(help="Name of the publisher.")] = SOURCE,
    service: Annotated[_Text, typer.Option("--service", help="service_name")] = None,
    operation: Annotated[_Text, typer.Option("--operation", help="operation_name")] = None,
    span_id: Annotated[_Text, typer.Option(help="span_id")] = None,
    parent: Annotated[_Text, typer.Option("--parent-span-id", help="parent_span_id")] = None,
    kind: Annotated[_Text, typer.Option(help="Span kind: server, client, …")] = None,
    status: Annotated[_Text, typer.Option(help="status")] = None,
    error: Annotated[_Text, typer.Option(help="Error message of TraceFailed.")] = None,
    body: Annotated[_Text, typer.Option(help="Body of LogRecorded: text, or JSON.")] = None,
    severity: Annotated[
        _Text,
        typer.Option(help="Severity of LogRecorded: TRACE, DEBUG, INFO, WARN, ERROR, FATAL, or a number from 1 to 24."),
    ] = None,
    name: Annotated[_Text, typer.Option(help="Metric name of MetricUpdated.")] = None,
    value: Annotated[_Text, typer.Option(help="Value of MetricUpdated.")] = None,
    unit: Annotated[_Text, typer.Option(help="Unit of MetricUpdated.")] = None,
    start: Annotated[_Text, typer.Option("--start", help="start_time, RFC 3339")] = None,
    end: Annotated[_Text, typer.Option("--end", help="end_time, RFC 3339")] = None,
    tag: Annotated[
        list[str] | None,
        typer.Option(help="key=value, repeatable; a label of a metric. 200 and true are read as JSON."),
    ] = None,
    data: Annotated[_Text, typer.Option(help="event_data as a JSON object; other flags override its fields.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Send nothing if any line is refused.")] = False,
    wait: Annotated[
        bool,
        typer.Option("--wait", help="Return when the read models show the events; exit code 2 if they never will."),
    ] = False,
    timeout_s: Annotated[
        float, typer.Option("--timeout", min=0.1, help="Seconds to wait for Kafka, and for --wait.")
    ] = 30.0,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Publish events: one from flags, or many as JSON lines from a file or standard input.

    A line that is not a valid event is reported with its number; the others are still sent, and the exit code is 2. With --wait
    so are events that the log has rejected, or that can't be folded, with the reason.

    Example: spanfold publish --type TraceCreated --trace-id t1 --service shop --operation 'GET /cart' --tag cart=7
    --wait

    Example: spanfold publish --type MetricUpdated --service shop --name queue.length --value 7 --tag queue=mail

    Example: spanfold publish --type LogRecorded --service shop --severity ERROR --body 'no card' --trace-id t1

    Example: echo '{"event_type": "TraceCompleted", "aggregate_id": "t1"}' | spanfold publish -
    """
    own: dict[str, Any] = {
        "service_name": service,
        "operation_name": operation,
        "span_id": span_id,
        "parent_span_id": parent,
        "kind": kind,
        "status": status,
        "error": error,
        "body": None if body is None else _json_or_text(body),
        **_severity(severity),
        "name": name,
        "value": None if value is None else _json_or_text(value),
        "unit": unit,
        "start_time": start,
        "end_time": end,
    }
    if event_type == LogRecorded.__name__:
        own["trace_id"] = trace_id
    else:
        aggregate_id = aggregate_id or trace_id
    envelope = {"event_type": event_type, "aggregate_id": aggregate_id, "occurred_at": at, "event_id": event_id}
    flags = _event_object(envelope, own, tag or [], data)
    refused: list[str] = []
    target = installation(home)
    events = _events(file, flags, source, refused)
    if strict:
        events = iter(list(events))
        _refuse(refused, "nothing was sent")
    keep = as_json or bool(flags)
    report = publish_events(target, _counted(events), keep_events=keep, wait=wait, timeout_s=timeout_s)
    _print(report, as_json)
    _refuse(refused, "the others were sent")
    _refuse_hidden(report)


def _event_object(
    envelope: Mapping[str, _Text], own: Mapping[str, Any], tags: Sequence[str], data: _Text
) -> dict[str, Any]:
    """The event that the flags describe, as event_json takes it; empty when there were no flags."""
    given: dict[str, Any] = {name: value for name, value in envelope.items() if value is not None}
    event_data = parsed(data) if data else {}
    if not isinstance(event_data, dict):
        raise InvalidInput("--data: expected a JSON object")
    event_data |= {name: value for name, value in own.items() if value is not None}
    if tags:
        field = "labels" if envelope["event_type"] == MetricUpdated.__name__ else "tags"
        event_data[field] = {**event_data.get(field, {}), **dict(map(_tag, tags))}
    return given | {"event_data": event_data} if given or event_data else {}


def _severity(severity: _Text) -> dict[str, Any]:
    if severity is None:
        return {}
    return {"severity_number": severity_number(severity), "severity_text": "" if severity.isdecimal() else severity}


def _tag(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise InvalidInput(f"--tag {text}: expected key=value")
    return key, _json_or_text(value)


def _json_or_text(value: str) -> Any:
    try:
        return parsed(value)
    except InvalidInput:
        return value


def _events(file: Path | None, flags: dict[str, Any], source: str, refused: list[str]) -> Iterator[Event]:
    if flags and file:
        raise InvalidInput("pass either flags or JSON lines, not both")
    if flags:
        return iter([event_from_json(flags, now_us(), source)])
    if file is None and sys.stdin.isatty():
        raise InvalidInput(
            "nothing to publish: pass --type and its fields, or JSON lines; see `spanfold publish --help`"
        )

    def note(line: str) -> None:
        refused.append(line)
        notice(line)

    return events_of_lines(_lines(file), source, note)


def _lines(file: Path | None) -> Iterator[bytes]:
    if file is None or str(file) == "-":
        yield from _standard_input()
        return
    try:
        with file.open("rb") as opened:
            yield from opened
    except OSError as error:
        raise InvalidInput(f"{file}: {error.strerror}") from error


def _standard_input() -> Iterator[bytes]:
    """The lines of standard input; says what it waits for when none comes."""
    end = "; Ctrl-D ends them" if sys.stdin.isatty() else ""
    waiting = threading.Timer(SILENT_S, notice, [f"waiting for events on standard input, one JSON object a line{end}"])
    waiting.daemon = True
    waiting.start()
    try:
        for line in sys.stdin.buffer:
            waiting.cancel()
            yield line
    finally:
        waiting.cancel()


def _print(report: PublishReport, as_json: bool) -> None:
    if as_json:
        print_result(report.events)
        return
    for event in report.events:
        where = f"{event.topic}, partition {event.partition}, offset {event.offset}"
        console().print(f"{event.event_type} {event.event_id} at {where}", markup=False)
    hidden = Counter(record.verdict for record in report.not_shown)
    visible = f", {report.delivered - hidden.total():,} visible" if hidden else ", visible" if report.visible else ""
    others = "".join(f", {count:,} {verdict}" for verdict, count in sorted(hidden.items()))
    console().print(f"{report.delivered:,} published{visible}{others}")


def _refuse_hidden(report: PublishReport) -> None:
    """InvalidInput when the read models do not show all events: what became of each, and why."""
    for record in report.not_shown[:MOST_NAMED]:
        notice(f"{record.position}: {record.verdict}: {record.detail}")
    if hidden := len(report.not_shown):
        verdicts = ", ".join(sorted({record.verdict for record in report.not_shown}))
        raise InvalidInput(
            f"{hidden:,} of {report.delivered:,} events are in the log, but no read model shows them: {verdicts}"
        )


def _counted(events: Iterator[Event]) -> Iterator[Event]:
    """The same events; on a terminal their number is shown while they go."""
    with _progress() as progress:
        task = progress.add_task("", total=None)
        for event in events:
            yield event
            progress.advance(task)


@contextmanager
def _progress() -> Iterator[Progress]:
    columns = (SpinnerColumn(), TextColumn("{task.completed:,.0f} events"), TaskProgressColumn(show_speed=True))
    screen = notices()
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as progress:
        yield progress


def _refuse(refused: Sequence[str], outcome: str) -> None:
    if refused:
        raise InvalidInput(f"{len(refused)} lines were refused, {outcome}")
