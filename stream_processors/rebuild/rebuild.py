"""`rebuild`, `verify`, `rollback`, `as-of` and `follow`, step by step.

A rebuild makes a projection's tables anew from the log, while they are read and written. It may be killed at any point, and goes
on from there when it is called again:

1. load: a generation of its own is folded beside the live one, by processes that workers and readers do not notice;
2. compare: live and rebuilt rows at one exact position;
3. hand over: workers keep it up to date from here on, in the transactions that fold the live one;
4. wait until no transaction sees the database as it was before that;
5. swap: the views show it, the one that was live is kept as the previous one.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from spanfold.application.aggregates import aggregate_of
from spanfold.language.errors import Misconfigured
from spanfold.language.positions import NextOffsets, Position
from spanfold.projections.generation_states import UNFINISHED, GenerationState
from spanfold.projections.generations import lifecycle
from spanfold.projections.generations.lifecycle import GenerationRow
from spanfold.projections.generations.parity import TableParity
from spanfold.projections.generations.shadow import next_offsets_of
from spanfold.projections.generations.swap import hand_over, swap
from spanfold.projections.generations.views import refuse_shrinking_views, show_in
from spanfold.projections.projection import why_not_from_states
from spanfold.projections.states.rows import SNAPSHOTS
from spanfold.stream_processors.rebuild.as_of_schemas import generation_schema
from spanfold.stream_processors.rebuild.compare import compare_with_live, refuse_differences
from spanfold.stream_processors.rebuild.generation_loader import GenerationLoader, refuse_gaps
from spanfold.stream_processors.rebuild.log_reader import LogReader
from spanfold.stream_processors.rebuild.rebuild_context import RebuildContext
from spanfold.stream_processors.rebuild.takeover import Waits, wait_for_old_snapshots, when_possible

FOLLOW_PAUSE_S: Final = 0.2

IDLE_S: Final = 10.0
"""How long a follower sees no record before it says that it may be ended."""

UNAIDED_S: Final = 15.0
"""For so long workers must have kept a generation up to date without help: a partition may be quiet, or change hands."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a load took: states of aggregates, offsets of the log, seconds."""

    states: int = 0
    records: int = 0
    load_s: float = 0.0


@dataclass(frozen=True, slots=True)
class RebuildReport:
    """What was done. Times in seconds; `blocked_s` is the longest time for which live commits waited, `waited_for` names the
    sessions that held the work up. `needs_follower`: workers that run may not carry this fold version, see `follow`. `equal`:
    whatever was compared is the same.
    """

    projection: str
    generation: int
    fold_version: int
    replaced: int | None
    states: int
    records: int
    load_s: float
    events_per_s: int
    total_s: float
    blocked_s: float
    parity: Sequence[TableParity]
    equal: bool
    waited_for: Sequence[str]
    needs_follower: bool


@dataclass(frozen=True, slots=True)
class RebuildPreview:
    """How many offsets a rebuild would fold of each partition, and the generation that it would go on with."""

    offsets: NextOffsets
    unfinished: GenerationRow | None


def rebuild(
    context: RebuildContext, workers: int, *, accept_differences: bool = False, from_snapshot: bool = False
) -> RebuildReport:
    """Make the projection anew from the log and swap it in; go on with what an earlier rebuild left. `from_snapshot`: from the
    states of its aggregates, and the log behind them.

    Misconfigured when the log has lost records, a view would lose columns, or another rebuild runs; RowsDiffer when the
    same fold now makes other rows, unless that is accepted. Then, and on every other error, the live tables are as before.
    """
    began, loaded = time.monotonic(), Loaded()
    parity: Sequence[TableParity] = ()
    if from_snapshot:
        _refuse_without_states(context)
    live, generation = context.newest(GenerationState.LIVE), _resumed_or_new(context)
    with GenerationLoader(context, generation, workers) as loader:
        if generation.state == GenerationState.LOADING:
            loaded = load(context, loader, live, from_snapshot=from_snapshot)
            if live is not None:
                parity = compare_with_live(context, loader, live, generation)
                if not accept_differences:
                    refuse_differences(context, live, parity)
        waits = _make_live(context, loader, generation)
        _drop_older_previous(context, live)
    return _report(context, generation, live, began, loaded, parity, waits)


def verify(context: RebuildContext, workers: int, *, from_snapshot: bool = False) -> RebuildReport:
    """Make the projection anew beside the live one, compare both at one position, and drop the new one again."""
    began = time.monotonic()
    if from_snapshot:
        _refuse_without_states(context)
    live = context.newest(GenerationState.LIVE)
    if live is None:
        raise Misconfigured(
            f"{context.projection.name} has no live generation to compare with: create one with `spanfold rebuild`"
        )
    _refuse_unfinished(context)
    generation = _resumed_or_new(context)
    try:
        with GenerationLoader(context, generation, workers) as loader:
            loaded = load(context, loader, live, from_snapshot=from_snapshot)
            parity = compare_with_live(context, loader, live, generation)
    finally:
        context.drop(generation)
    return _report(context, generation, live, began, loaded, parity, Waits())


def rollback(context: RebuildContext, workers: int) -> RebuildReport:
    """Make the previous generation live again, after it has caught up with the log; go on with a rollback that was killed."""
    began, loaded = time.monotonic(), Loaded()
    live = context.newest(GenerationState.LIVE)
    previous = _unfinished_rollback(context) or context.newest(GenerationState.PREVIOUS)
    if previous is None:
        raise Misconfigured(f"{context.projection.name} has no previous generation: nothing to go back to")
    _refuse_other_fold(context, previous)
    if previous.state == GenerationState.PREVIOUS:
        _refuse_unfinished(context)
    _refuse_shrinking_views(context, previous)
    with GenerationLoader(context, previous, workers) as loader:
        if previous.state == GenerationState.PREVIOUS:
            loaded = load(context, loader, None)
        waits = _make_live(context, loader, previous)
    return _report(context, previous, live, began, loaded, (), waits)


def abort(context: RebuildContext) -> list[GenerationRow]:
    """Drop what a rebuild has begun and not ended, and return it. What a rollback has not ended is the previous one again."""
    if (rolling_back := _unfinished_rollback(context)) is not None:
        with context.engine.begin() as connection:
            lifecycle.set_state(connection, context.projection.name, rolling_back, GenerationState.PREVIOUS)
    unfinished = context.generations(*UNFINISHED)
    for generation in unfinished:
        context.drop(generation)
    return unfinished


def drop_previous(context: RebuildContext) -> list[GenerationRow]:
    """Drop the generations that were live before the last rebuild, and return them: there is no rollback then."""
    previous = context.generations(GenerationState.PREVIOUS)
    for generation in previous:
        context.drop(generation)
    return previous


def preview(context: RebuildContext, *, from_snapshot: bool = False) -> RebuildPreview:
    """What a rebuild would have to fold, and what it would go on with; refuses what a rebuild would refuse. Changes nothing."""
    if from_snapshot:
        _refuse_without_states(context)
    unfinished = _unfinished_rebuild(context)
    with context.engine.connect() as connection:
        # as_of, because what a rebuild would drop first may still be the one that is loading or following
        generation = unfinished or lifecycle.create_generation(connection, context.projection, GenerationState.AS_OF)
        refuse_shrinking_views(connection, context.projection, generation.schema)
        connection.rollback()
    judged = context.judged()
    begun_at = context.next_offsets(unfinished) if unfinished else {}
    start = _after_states(context, begun_at) if from_snapshot else begun_at
    with LogReader(context.settings) as reader:
        refuse_gaps(context, reader, {at: start.get(at, 0) for at in judged}, judged)
    return RebuildPreview({at: end - start.get(at, 0) for at, end in judged.items()}, unfinished)


def as_of(context: RebuildContext, into: str, until: NextOffsets, workers: int) -> int:
    """Load the projection up to these offsets and show it in the schema `into`; returns how many offsets that took.

    Misconfigured when the log no longer reaches back to its start, or these offsets have not been judged yet.
    """
    _refuse_unjudged(context, until)
    schema = generation_schema(into, context.projection.name)
    with context.engine.begin() as connection:
        generation = lifecycle.create_generation(connection, context.projection, GenerationState.AS_OF, schema)
    try:
        with GenerationLoader(context, generation, workers) as loader:
            loader.refuse_gaps(until)
            records = loader.load(until)
            loader.trim()
            loader.create_indexes()
        with context.engine.begin() as connection:
            show_in(connection, context.projection, schema, into)
    except BaseException:
        context.drop(generation)
        raise
    return records


def follow(context: RebuildContext) -> None:
    """Keep the live generation, which workers that run may not carry, up to date until workers of this code do: until somebody
    else moves it, and nothing has been left to this process for UNAIDED_S. On an idle log nobody moves it; after IDLE_S without a
    record it says that it may be ended.
    """
    live = context.newest(GenerationState.LIVE)
    if live is None:
        return
    context.progress.step("following the log until workers of this version take over (Ctrl-C leaves it to them)")
    with GenerationLoader(context, live, processes=0) as loader:
        left_at, taken_over, helped_at = loader.next_offsets(), False, time.monotonic()
        idle_until = helped_at + IDLE_S
        while not taken_over or time.monotonic() - helped_at < UNAIDED_S:
            judged = context.judged()  # before the generation's: a worker that folds it moves both in one commit
            offsets = loader.next_offsets()
            taken_over = taken_over or any(offset > left_at[at] for at, offset in offsets.items())
            behind = {at: end for at, end in judged.items() if end > offsets[at]}
            left_at = {**offsets, **behind}
            if behind:
                loader.load(left_at)
                helped_at = time.monotonic()
            if not taken_over and time.monotonic() > max(idle_until, helped_at + IDLE_S):
                context.progress.step(
                    "nothing has arrived in the log, so nobody can be seen to take over: end this with Ctrl-C once workers "
                    "of this version are running, which then go on from here"
                )
                idle_until = math.inf
            time.sleep(FOLLOW_PAUSE_S)


def load(
    context: RebuildContext, loader: GenerationLoader, live: GenerationRow | None, *, from_snapshot: bool = False
) -> Loaded:
    """Load up to where the live generation stands, so that both can be compared there later."""
    began = time.monotonic()
    states = loader.load_states() if from_snapshot else 0
    until = context.judged()
    if live is not None:
        live_offsets = context.next_offsets(live)
        until = {partition: min(end, live_offsets.get(partition, end)) for partition, end in until.items()}
    loader.refuse_gaps(until)
    context.progress.step("loading")
    records = loader.load(until)
    loaded = Loaded(states, records, time.monotonic() - began)
    context.progress.step("creating indexes")
    loader.create_indexes()
    return loaded


def _make_live(context: RebuildContext, loader: GenerationLoader, generation: GenerationRow) -> Waits:
    """Steps 3 to 5; a generation that follows already has been handed over."""
    waits = Waits()
    loader.trim()
    if generation.state != GenerationState.FOLLOWING:
        context.progress.step("catching up")
        waits += when_possible(hand_over, context, loader, generation)
    context.progress.step("waiting for transactions that began before the hand-over")
    waits += wait_for_old_snapshots(context, loader)
    context.progress.step("swapping the views")
    return waits + when_possible(swap, context, loader, generation)


def _drop_older_previous(context: RebuildContext, live: GenerationRow | None) -> None:
    """Keep one previous generation: what was live until now."""
    for generation in context.generations(GenerationState.PREVIOUS):
        if live is None or generation.number != live.number:
            try:
                context.drop(generation)
            except Misconfigured as error:
                context.progress.step(f"kept: {error}")


def _resumed_or_new(context: RebuildContext) -> GenerationRow:
    """The generation that is to become live: one that an earlier process began, or a new one."""
    if (unfinished := _unfinished_rebuild(context)) is not None:
        context.progress.step(f"resuming with generation {unfinished.number}")
        _refuse_shrinking_views(context, unfinished)
        return unfinished
    abort(context)
    with context.engine.begin() as connection:
        created = lifecycle.create_generation(connection, context.projection, GenerationState.LOADING)
        refuse_shrinking_views(connection, context.projection, created.schema)
    return created


def _unfinished_rebuild(context: RebuildContext) -> GenerationRow | None:
    """What a rebuild by this fold version has begun and not ended. What a rollback has not ended is no rebuild's."""
    unfinished = context.newest(*UNFINISHED)
    ours = unfinished is not None and unfinished.fold_version == context.projection.fold_version
    return unfinished if ours and _unfinished_rollback(context) is None else None


def _unfinished_rollback(context: RebuildContext) -> GenerationRow | None:
    """The generation that a rollback has handed over and not swapped: it is older than the live one."""
    live, following = context.newest(GenerationState.LIVE), context.newest(GenerationState.FOLLOWING)
    return following if live and following and following.number < live.number else None


def _after_states(context: RebuildContext, start: NextOffsets) -> NextOffsets:
    """Where the log would be read from after the states, which stand where their checkpoints say."""
    begin = dict(start)
    for topic in context.projection.topics:
        states = next_offsets_of(context.control, SNAPSHOTS, aggregate_of(topic).fold_version)
        begin |= {at: offset for at, offset in states.items() if at[0] == topic.name and not start.get(at)}
    return begin


def _refuse_without_states(context: RebuildContext) -> None:
    if (why_not := why_not_from_states(context.projection)) is not None:
        raise Misconfigured(
            f"{context.projection.name} can't be rebuilt from snapshots: {why_not}. Rebuild it from the log"
        )


def _refuse_unfinished(context: RebuildContext) -> None:
    if (unfinished := context.newest(*UNFINISHED)) is not None:
        name = context.projection.name
        raise Misconfigured(
            f"generation {unfinished.number} of {name} is {unfinished.state}: a rebuild is unfinished; resume with `spanfold "
            f"rebuild {name}`, discard with `spanfold rebuild {name} --abort`"
        )


def _refuse_other_fold(context: RebuildContext, previous: GenerationRow) -> None:
    name, version = context.projection.name, context.projection.fold_version
    if previous.fold_version != version:
        raise Misconfigured(
            f"the previous generation of {name} was made by fold version {previous.fold_version}, this code has {version}: "
            "roll back with the code that has it"
        )


def _refuse_shrinking_views(context: RebuildContext, generation: GenerationRow) -> None:
    with context.engine.begin() as connection:
        refuse_shrinking_views(connection, context.projection, generation.schema)


def _refuse_unjudged(context: RebuildContext, until: NextOffsets) -> None:
    judged = context.judged()
    beyond = [f"{Position(*at, end)} (now {judged[at]})" for at, end in until.items() if end > judged[at]]
    if beyond:
        raise Misconfigured(f"the workers have not reached this yet: {', '.join(beyond)}")


def _report(
    context: RebuildContext,
    generation: GenerationRow,
    live: GenerationRow | None,
    began: float,
    loaded: Loaded,
    parity: Sequence[TableParity],
    waits: Waits,
) -> RebuildReport:
    version = context.projection.fold_version
    return RebuildReport(
        projection=context.projection.name,
        generation=generation.number,
        fold_version=version,
        replaced=live.number if live else None,
        states=loaded.states,
        records=loaded.records,
        load_s=loaded.load_s,
        events_per_s=round(loaded.records / loaded.load_s) if loaded.load_s else 0,
        total_s=time.monotonic() - began,
        blocked_s=waits.blocked_s,
        parity=parity,
        equal=all(table.equal for table in parity),
        waited_for=waits.sessions,
        needs_follower=live is None or live.fold_version != version,
    )
