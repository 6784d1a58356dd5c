"""`spanfold as-of`: the tables as the log knew them at a moment."""

from collections.abc import Callable, Sequence
from typing import Annotated

import typer
from rich.text import Text

from spanfold.cli.output import console, print_json
from spanfold.cli.rebuilding import WORKERS, Workers, chosen, postgres_translated, prepared
from spanfold.cli.stack import AsJson, Home, chosen_settings, named_postgres, running_settings, sigterm_interrupts
from spanfold.language.errors import InvalidInput
from spanfold.language.positions import NextOffsets
from spanfold.language.settings import Settings
from spanfold.operations.positions import position_of
from spanfold.projections.projection import Projection
from spanfold.stream_processors.rebuild import as_of_schemas as past
from spanfold.stream_processors.rebuild import rebuild as rebuilding
from spanfold.stream_processors.rebuild.rebuild_context import RebuildContext

Find = Callable[[RebuildContext], NextOffsets]


def as_of(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="TIME|TOPIC/PARTITION@OFFSET… [PROJECTION…]", help="Which moment; of what, else of all."
        ),
    ] = None,
    into: Annotated[
        str | None, typer.Option("--into", metavar="SCHEMA", help="The schema to make.", show_default=False)
    ] = None,
    drop: Annotated[
        str | None, typer.Option("--drop", metavar="SCHEMA", help="Drop such a schema.", show_default=False)
    ] = None,
    workers: Workers = WORKERS,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Create the tables as they were at a moment in the past, in another schema.

    A TIME (RFC 3339) means the records that the broker had before it, whatever their own times say. Positions name the
    first offset that is not folded, for every partition of the topic. The live tables stay as they are. Traces that were
    erased since are not shown, and it says how many there are.

    Example: spanfold as-of 2026-11-23T07:00:00Z traces --into yesterday; spanfold as-of --drop yesterday
    """
    settings = running_settings(chosen_settings(home))
    if drop is not None:
        with postgres_translated():
            dropped = past.drop_schema(named_postgres(settings), drop)
        if as_json:
            print_json({"schema": drop, "dropped": dropped})
        else:
            console().print(Text(f"dropped {drop}: {', '.join(dropped) or 'it was empty'}"))
        return
    if not words or into is None:
        raise InvalidInput("name a time or positions, and --into SCHEMA; `spanfold as-of --help` has an example")
    find, names = _parsed(words, settings.topic_prefix)
    wanted = chosen(names)
    with sigterm_interrupts(), postgres_translated():
        folded, erased = _make(settings, into, " ".join(words), wanted, find, workers)
    if as_json:
        print_json({"schema": into, "records": folded, "erased": erased})
    else:
        said = ", ".join(f"{name} from {records:,} records" for name, records in folded.items())
        if erased:
            said += f", without {erased:,} {'trace that was' if erased == 1 else 'traces that were'} erased since"
        console().print(
            Text(f"{into} shows {said}: spanfold sql 'SELECT * FROM {into}.{wanted[-1].views[0].name} LIMIT 5'")
        )


def _make(
    settings: Settings, into: str, words: str, wanted: Sequence[Projection], find: Find, workers: int
) -> tuple[dict[str, int], int]:
    """How many records each projection took, and how many traces were erased since then."""
    dsn, ours = named_postgres(settings), prepared(settings)
    past.create_schema(dsn, into, words)
    folded: dict[str, int] = {}
    erased: set[str] = set()
    try:
        for projection in wanted:
            with ours.at_work(projection) as context:
                until = find(context)
                folded[projection.name] = rebuilding.as_of(context, into, until, workers)
                erased |= past.erased_since(context, until)
    except BaseException:
        past.drop_schema(dsn, into)
        raise
    return folded, len(erased)


def _parsed(words: Sequence[str], prefix: str) -> tuple[Find, list[str]]:
    """How to find the positions, and the projections that are named."""
    moments = {word: moment for word in words if (moment := past.parsed_moment(word)) is not None}
    positions = {word: position_of(word, prefix) for word in words if word not in moments and "@" in word}
    names = [word for word in words if word not in positions and word not in moments]
    if positions and not moments:
        named = {(each.topic, each.partition): each.offset for each in positions.values()}
        names = names or _folded_from({topic for topic, _ in named})
        return lambda context: past.offsets_for(context, named), names
    if len(moments) == 1 and not positions:
        (moment,) = moments.values()
        return lambda context: past.offsets_at(context, moment), names
    raise InvalidInput(
        "say when: one time (2026-11-23T07:00:00Z), or positions (spanfold.traces/0@1234 for each partition), not "
        f"{' '.join(words)!r}"
    )


def _folded_from(topics: set[str]) -> list[str]:
    """The projections that fold one of these topics."""
    names = [each.name for each in chosen(None) if not topics.isdisjoint(topic.name for topic in each.topics)]
    if not names:
        raise InvalidInput(f"no projection is folded from {', '.join(sorted(topics))}")
    return names
