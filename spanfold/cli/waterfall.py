"""A trace as people look at it: a line that says what it was, and its spans as bars under each other."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from rich.text import Text

from spanfold.cli.output import one_line

BAR_WIDTH: Final = 40

_NAME_WIDTH: Final = 46
_CALLERS: Final = ("client", "producer")
_CALLEES: Final = ("server", "consumer")
_STATUS_STYLE: Final = {"failed": "red", "started": "yellow"}


@dataclass(frozen=True, slots=True)
class Bar:
    """What a waterfall shows of a span; times in µs since any one moment."""

    span_id: str
    parent_span_id: str | None
    service_name: str
    operation_name: str
    kind: str
    status: str
    start_us: int
    end_us: int


def head_line(trace: Mapping[str, Any]) -> Text:
    """Service, operation, duration, status, error and id of a row of spanfold.traces."""
    root = f"{trace['service_name']} {trace['operation_name']}" if trace["service_name"] else "(no TraceCreated so far)"
    duration = "open" if trace["duration_ms"] is None else f"{trace['duration_ms']:.1f} ms"
    head = Text(f"{one_line(root)}  {duration}  ")
    head.append(one_line(str(trace["status"])), style=_STATUS_STYLE.get(trace["status"], "green"))
    head.append(f"  {one_line(trace['error'])}" if trace["error"] else "", style="red")
    return head.append(f"  {one_line(trace['trace_id'])}", style="dim")


def waterfall(bars: Sequence[Bar]) -> Iterator[Text]:
    """A line a span: name by depth, bar by time within the whole, duration."""
    if bars:
        begin, end = min(bar.start_us for bar in bars), max(bar.end_us for bar in bars)
        for depth, bar in as_tree(bars):
            yield _line(depth, bar, begin, end - begin)


def as_tree(bars: Iterable[Bar]) -> list[tuple[int, Bar]]:
    """The spans with their depths, each after its parent, siblings by start. Without its parent a span stands at the top.

    Of the two halves of a span that Zipkin's client and server share, the server's stands under the client's.
    """
    ordered = sorted(bars, key=lambda bar: (bar.start_us, -bar.end_us, bar.span_id))
    children = _children(ordered)
    tree: list[tuple[int, Bar]] = []
    left = dict.fromkeys(range(len(ordered)))
    # those at the top first; who is left then has itself among its ancestors
    for root in [*children.get(None, ()), *left]:
        stack = [(0, root)]
        while stack:
            depth, index = stack.pop()
            if index in left:
                del left[index]
                tree.append((depth, ordered[index]))
                stack += [(depth + 1, child) for child in reversed(children.get(index, []))]
    return tree


def _children(ordered: Sequence[Bar]) -> dict[int | None, list[int]]:
    """The indexes of each one's children; under None those that have no parent here."""
    callers = {bar.span_id: index for index, bar in enumerate(ordered) if bar.kind in _CALLERS}
    parents = {bar.span_id: index for index, bar in enumerate(ordered) if bar.kind not in _CALLEES}
    parents |= {bar.span_id: index for index, bar in enumerate(ordered) if bar.kind in _CALLEES}
    children: dict[int | None, list[int]] = {}
    for index, bar in enumerate(ordered):
        shared = callers.get(bar.span_id) if bar.kind in _CALLEES else None
        parent = parents.get(bar.parent_span_id or "") if shared is None else shared
        children.setdefault(parent, []).append(index)
    return children


def _line(depth: int, bar: Bar, begin_us: int, whole_us: int) -> Text:
    name = one_line(f"{'  ' * depth}{bar.service_name} {bar.operation_name}")
    if len(name) > _NAME_WIDTH:
        name = name[: _NAME_WIDTH - 1] + "…"
    scale = BAR_WIDTH / max(whole_us, 1)
    offset = min(int((bar.start_us - begin_us) * scale), BAR_WIDTH - 1)
    length = max(1, min(round((bar.end_us - bar.start_us) * scale), BAR_WIDTH - offset))
    line = Text(f"  {name:<{_NAME_WIDTH}} " + " " * offset)
    line.append("━" * length, style="red" if bar.status == "error" else "cyan")
    return line.append(f"{' ' * (BAR_WIDTH - offset - length)} {(bar.end_us - bar.start_us) / 1000:9.1f} ms")
