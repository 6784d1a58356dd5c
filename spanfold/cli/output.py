"""How commands speak: tables for people, JSON for programs. Results go to standard output, all else to standard error."""

import re
import sys
from collections.abc import Collection, Iterable, Sequence
from decimal import Decimal
from typing import IO, Any, Final, TextIO, cast

import orjson
from rich.console import Console
from rich.table import Table
from rich.text import Text

from spanfold.language.json_values import decimal_text

UNBOUNDED_WIDTH: Final = 1_000_000

Cell = str | Text | int | None


class _Trimmed:
    """A stream whose lines end with what they show: a table pads its last column."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        return self._stream.write(_PADDING.sub("", text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


_PADDING: Final = re.compile(r" +(?=\n)")


def console() -> Console:
    """Standard output. Where it isn't a terminal, lines are as long as what they show."""
    return Console(file=_file(sys.stdout), width=_width(sys.stdout), highlight=False)


def notices() -> Console:
    """Standard error, for progress and remarks; as long lines."""
    return Console(file=_file(sys.stderr), width=_width(sys.stderr), highlight=False)


def notice(line: str) -> None:
    """A line on standard error, as it is."""
    notices().print(line, markup=False, soft_wrap=True)


def _file(stream: TextIO) -> IO[str]:
    return stream if stream.isatty() else cast("IO[str]", _Trimmed(stream))


def _width(stream: TextIO) -> int | None:
    return None if stream.isatty() else UNBOUNDED_WIDTH


def table(
    columns: Sequence[str], rows: Iterable[Sequence[Cell]], title: str | None = None, right: Collection[int] = ()
) -> Table:
    """A table that never cuts a value: on a narrow terminal it folds. None is rendered as a dim NULL.

    Columns of numbers, and those whose index is in `right`, are set to the right.
    """
    kept = list(rows)
    rendered = Table(
        title=title, title_justify="left", box=None, pad_edge=False, header_style="bold", show_header=any(columns)
    )
    for index, column in enumerate(columns):
        numeric = index in right or any(isinstance(row[index], int) for row in kept)
        rendered.add_column(Text(column), justify="right" if numeric else "left", overflow="fold")
    for row in kept:
        rendered.add_row(*map(cell, row))
    return rendered


def cell(value: Cell) -> Text:
    """The value as literal text: square brackets in it mean nothing."""
    if value is None:
        return Text("NULL", style="dim")
    return value if isinstance(value, Text) else Text(str(value))


def print_result(value: Any) -> None:
    """The result of an operation, as the HTTP API answers it (http/json_results.py); a list has a line for each element."""
    # imported here: tables do without it
    from spanfold.http.json_results import plain

    if isinstance(value, list):
        print_json_rows(map(plain, value))
    else:
        print_json(plain(value))


def print_json(value: Any) -> None:
    """One JSON document, indented."""
    sys.stdout.write(orjson.dumps(value, default=jsonable, option=orjson.OPT_INDENT_2).decode() + "\n")


def print_json_rows(rows: Iterable[dict[str, Any]]) -> None:
    """A JSON list of objects, one a line, written as they come."""
    separator = "["
    for row in rows:
        sys.stdout.write(
            separator + "\n" + orjson.dumps(row, default=jsonable, option=orjson.OPT_NON_STR_KEYS).decode()
        )
        separator = ","
    sys.stdout.write("\n]\n" if separator == "," else "[]\n")


def jsonable(value: Any) -> Any:
    """What orjson takes for a value that it doesn't know: exact numbers for Decimal, hex for bytes, else the text."""
    match value:
        case Decimal() if value.is_finite():
            return orjson.Fragment(decimal_text(value).encode())
        case bytes() | bytearray() | memoryview():
            return bytes(value).hex()
        case set() | frozenset() | tuple():
            return list(value)
        case _:
            return str(value)


def one_line(value: Any) -> str:
    """A text as it is, else JSON; what a terminal would obey or not show stands as an escape."""
    text = value if isinstance(value, str) else orjson.dumps(value, default=jsonable).decode()
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
