"""`spanfold tail`: the records of a topic, decoded, as they arrive."""

import os
import sys
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Annotated, Any

import orjson
import typer

from spanfold.cli.options import Home, installation, sigterm_interrupts
from spanfold.cli.output import jsonable
from spanfold.http.json_results import plain
from spanfold.operations import tail as operation
from spanfold.operations.tail import TailedRecord


def tail(
    topic: Annotated[str, typer.Argument(help="traces or spanfold.traces, metrics, logs, …")],
    begin: Annotated[
        str, typer.Option("--from", metavar="beginning|end|OFFSET", help="Where to start in each partition.")
    ] = "end",
    partition: Annotated[int | None, typer.Option(min=0, help="Only this partition.", show_default=False)] = None,
    event_type: Annotated[str | None, typer.Option("--type", help="Only this event type.", show_default=False)] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Stop after this many records.", show_default=False)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs, one object per line.")] = False,
    home: Home = None,
) -> None:
    """Show the records of a topic, decoded, as they arrive.

    Each record is one line: log time, partition:offset, key, event type, fields. A record that can't be decoded is shown
    with the reason and the start of its value in hexadecimal. Records of aborted transactions are not shown. Runs until
    Ctrl-C, outside any consumer group, so it takes nothing from the workers.

    Example: spanfold tail traces --from beginning --type TraceFailed --limit 10
    """
    records = operation.tail(installation(home), topic, begin=begin, partition=partition, event_type=event_type)
    line = _json_line if as_json else _line
    try:
        with sigterm_interrupts():
            for record in islice(records, limit):
                sys.stdout.write(line(record) + "\n")
                sys.stdout.flush()
    except KeyboardInterrupt:
        pass
    except BrokenPipeError:  # who reads has seen enough; nothing may be flushed to it at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _json_line(record: TailedRecord) -> str:
    return orjson.dumps(plain(record), default=jsonable, option=orjson.OPT_NON_STR_KEYS).decode()


def _line(record: TailedRecord) -> str:
    """One line, without what it says elsewhere; times of day are UTC."""
    place = f"{record.partition}:{record.offset}"
    words = [str(record.time), place, _word(record.key), record.event_type or "?"]
    if record.undecoded is not None:
        why = record.undecoded
        return " ".join([*words, f"! {why.reason}: {why.detail}; {why.bytes} bytes: {why.value}"])
    return " ".join([*words, *_fields(record.fields or {}, str(record.key))])


def _fields(fields: Mapping[str, Any], key: str) -> Iterator[str]:
    for name, value in fields.items():
        if name == "event_id" or (name == "aggregate_id" and value == key) or value in (None, {}, []):
            continue
        yield f"{name}={_word(value)}"


def _word(value: Any) -> str:
    """A word as it is; anything else as JSON, so that a line stays a line."""
    if isinstance(value, str) and value.isprintable() and value and not set(value) & set(' "='):
        return value
    return orjson.dumps(value, default=jsonable, option=orjson.OPT_NON_STR_KEYS).decode()
