"""`rebuild`, `verify`, `rollback`: a projection's tables made anew from the log while they are read, compared, swapped.

The steps of a rebuild, each of which may be killed and gone on from:

1. load: a generation of its own is folded beside the live one, by processes that workers and readers do not notice;
2. compare: live and rebuilt rows at one exact position;
3. hand over: workers keep it up to date from here on, in the transactions that fold the live one;
4. wait until nobody looks at the database as it was before that;
5. swap: the views show it, the one that was live is kept as the previous one.
"""

import random
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Final

from spanfold.application.aggregates import aggregate_of
from spanfold.language.errors import LogUnavailable, Misconfigured
from spanfold.projections.generations import lifecycle
from spanfold.projections.generations.lifecycle import BEGUN, GenerationRow
from spanfold.projections.generations.parity import TableParity
from spanfold.projections.generations.shadow import Positions, positions_of
from spanfold.projections.generations.swap import Occupied, Session, hand_over, readers, snapshots, swap
from spanfold.projections.generations.views import refuse_shrinking_views
from spanfold.projections.projection import why_not_from_states
from spanfold.projections.states.rows import SNAPSHOTS
from spanfold.stream_processors.rebuild.comparing import parity_of, refuse_differences
from spanfold.stream_processors.rebuild.loading import Loading, Workplace, refuse_what_the_log_lacks
from spanfold.stream_processors.rebuild.replay import LogReader

SMALL_REST: Final = 10_000
"""Records that may be left for the transaction of the hand-over, in which commits wait."""

_PAUSE_S: Final = 0.2

_MOMENT_S: Final = 1.0


@dataclass(slots=True)
class Result:
    """What was done. Times in seconds; `blocked_s` is the longest time for which live commits waited."""

    projection: str
    generation: int
    fold_version: int
    replaced: int | None
    states: int = 0
    records: int = 0
    load_s: float = 0.0
    total_s: float = 0.0
    blocked_s: float = 0.0
    parity: Sequence[TableParity] = ()
    waited_for: list[str] = field(default_factory=list)
    needs_follower: bool = False
    """Workers that run may not carry this fold version: see `follow`."""

    def blocked(self, seconds: float) -> None:
        """Commits waited for so long."""
        self.blocked_s = max(self.blocked_s, seconds)


def rebuild(place: Workplace, workers: int, *, accept_differences: bool = False, from_snapshot: bool = False) -> Result:
    """Make the projection anew from the log and swap it in; go on with what an earlier rebuild left. `from_snapshot`: from the
    states of its aggregates, and the log behind them.

    Misconfigured when the log has lost records, a view would lose columns, or another rebuild runs; RowsDiffer when the
    same fold now makes other rows, unless that is accepted. Then, and on every other error, the live tables are as before.
    """
    began = time.monotonic()
    if from_snapshot:
        _refuse_what_states_lack(place)
    live, next_one = place.in_state("live"), _next(place)
    result = _result(place, next_one, live)
    with closing(Loading(place, next_one, workers)) as loading:
        if next_one.state == "loading":
            _load(place, loading, live, result, from_snapshot)
            if live is not None:
                result.parity = parity_of(place, loading, live, next_one)
                if not accept_differences:
                    refuse_differences(place, live, result.parity)
        _make_live(place, loading, next_one, result)
        _drop_older(place, live)
    result.total_s = time.monotonic() - began
    return result


def verify(place: Workplace, workers: int, *, from_snapshot: bool = False) -> Result:
    """Make the projection anew beside the live one, compare both at one position, and drop the new one again."""
    began = time.monotonic()
    if from_snapshot:
        _refuse_what_states_lack(place)
    live = place.in_state("live")
    if live is None:
        raise Misconfigured(
            f"{place.projection.name} has no live generation to compare with: `spanfold rebuild` makes one"
        )
    _refuse_unfinished(place)
    next_one = _next(place)
    result = _result(place, next_one, live)
    try:
        with closing(Loading(place, next_one, workers)) as loading:
            _load(place, loading, live, result, from_snapshot)
            result.parity = parity_of(place, loading, live, next_one)
    finally:
        place.drop(next_one)
    result.total_s = time.monotonic() - began
    return result


def rollback(place: Workplace, workers: int) -> Result:
    """Make the previous generation live again, after it has caught up with the log."""
    began = time.monotonic()
    name, version = place.projection.name, place.projection.fold_version
    live = place.in_state("live")
    previous = _rolling_back(place) or place.in_state("previous")
    if previous is None:
        raise Misconfigured(f"{name} has no previous generation: nothing to go back to")
    if previous.fold_version != version:
        raise Misconfigured(
            f"the previous generation of {name} was made by fold version {previous.fold_version}, this code has {version}: "
            "go back with the code that has it"
        )
    if previous.state == "previous":
        _refuse_unfinished(place)
    _preflight(place, previous)
    result = _result(place, previous, live)
    with closing(Loading(place, previous, workers)) as loading:
        if previous.state == "previous":
            _load(place, loading, None, result)
        _make_live(place, loading, previous, result)
    result.total_s = time.monotonic() - began
    return result


def abort(place: Workplace) -> list[GenerationRow]:
    """Drop what a rebuild has begun and not ended, and returns it. What a rollback has not ended is the previous one again."""
    rolling_back = _rolling_back(place)
    if rolling_back is not None:
        with place.engine.begin() as connection:
            lifecycle.set_state(connection, place.projection.name, rolling_back, "previous")
    begun = [each for each in place.all() if each.state in BEGUN]
    for generation in begun:
        place.drop(generation)
    return begun


def _rolling_back(place: Workplace) -> GenerationRow | None:
    """The generation that a rollback has handed over and not swapped: it is older than the live one."""
    live, following = place.in_state("live"), place.in_state("following")
    return following if live and following and following.number < live.number else None


def _refuse_unfinished(place: Workplace) -> None:
    begun = place.in_state(*BEGUN)
    if begun is not None:
        name = place.projection.name
        raise Misconfigured(
            f"generation {begun.number} of {name} is {begun.state}: a rebuild was not ended. Go on with `spanfold rebuild "
            f"{name}`, or let go of it with `spanfold rebuild {name} --abort`"
        )


def preview(place: Workplace, *, from_snapshot: bool = False) -> tuple[Positions, GenerationRow | None]:
    """What a rebuild would have to fold, and what it would go on with; refuses what a rebuild would refuse. Changes nothing."""
    if from_snapshot:
        _refuse_what_states_lack(place)
    begun = _begun(place)
    with place.engine.connect() as connection:
        # as_of, because what a rebuild would drop first may still be the one that is loading or following
        generation = begun or lifecycle.create_generation(connection, place.projection, "as_of")
        refuse_shrinking_views(connection, place.projection, generation.schema)
        connection.rollback()
    start: Positions = positions_of(place.control, place.projection.name, generation.number) if begun else {}
    if from_snapshot:
        start = _with_states(place, start)
    judged = place.judged()
    with closing(LogReader(place.settings)) as reader:
        refuse_what_the_log_lacks(place, reader, {at: start.get(at, 0) for at in judged}, judged)
    return {at: end - start.get(at, 0) for at, end in judged.items()}, begun


def _with_states(place: Workplace, start: Positions) -> Positions:
    """Where the log would be read from, after the states: those stand where their checkpoints say."""
    begin = dict(start)
    for topic in place.projection.topics:
        standing = positions_of(place.control, SNAPSHOTS, aggregate_of(topic).fold_version)
        begin |= {at: end for at, end in standing.items() if at[0] == topic.name and not start.get(at)}
    return begin


def _result(place: Workplace, generation: GenerationRow, live: GenerationRow | None) -> Result:
    replaced, version = live.number if live else None, place.projection.fold_version
    result = Result(place.projection.name, generation.number, version, replaced)
    result.needs_follower = live is None or live.fold_version != version
    return result


def _next(place: Workplace) -> GenerationRow:
    """The generation that is to become live: one that an earlier process began, or a new one."""
    begun = _begun(place)
    if begun is not None:
        place.audience.step(f"going on with generation {begun.number}")
        _preflight(place, begun)
        return begun
    abort(place)
    with place.engine.begin() as connection:
        created = lifecycle.create_generation(connection, place.projection, "loading")
        refuse_shrinking_views(connection, place.projection, created.schema)
    return created


def _begun(place: Workplace) -> GenerationRow | None:
    """What a rebuild by this fold version has begun and not ended. What a rollback has not ended is no rebuild's."""
    begun = place.in_state(*BEGUN)
    ours = begun is not None and begun.fold_version == place.projection.fold_version
    return begun if ours and _rolling_back(place) is None else None


def _preflight(place: Workplace, generation: GenerationRow) -> None:
    with place.engine.begin() as connection:
        refuse_shrinking_views(connection, place.projection, generation.schema)


def _refuse_what_states_lack(place: Workplace) -> None:
    if (why_not := why_not_from_states(place.projection)) is not None:
        raise Misconfigured(
            f"{place.projection.name} can't be rebuilt from snapshots: {why_not}. Rebuild it from the log"
        )


def _load(
    place: Workplace, loading: Loading, live: GenerationRow | None, result: Result, from_snapshot: bool = False
) -> None:
    """Load up to where the live generation stands, so that both can be compared there later."""
    began = time.monotonic()
    if from_snapshot:
        result.states = loading.load_states()
    until = _not_beyond(place, live)
    refuse_what_the_log_lacks(place, loading.reader, loading.positions(), until)
    place.audience.step("loading")
    loading.load(until)
    result.load_s, result.records = time.monotonic() - began, loading.folded
    place.audience.step("creating indexes")
    loading.create_indexes()


def _not_beyond(place: Workplace, live: GenerationRow | None) -> Positions:
    judged = place.judged()
    if live is None:
        return judged
    at = positions_of(place.control, place.projection.name, live.number)
    return {where: min(end, at.get(where, end)) for where, end in judged.items()}


def _make_live(place: Workplace, loading: Loading, generation: GenerationRow, result: Result) -> None:
    loading.trim()
    if generation.state != "following":
        place.audience.step("catching up")
        _retried(place, loading, result, hand_over, generation)
    place.audience.step("waiting for snapshots from before")
    _wait_out(place, loading, result)
    place.audience.step("swapping the views")
    _retried(place, loading, result, swap, generation)


def _retried(place: Workplace, loading: Loading, result: Result, step: Any, generation: GenerationRow) -> None:
    """Catch up, and do it when nobody is in the way; say who is."""
    while True:
        loading.catch_up(SMALL_REST)
        try:
            step(place.engine, place.projection, generation, loading.fold_rest, result.blocked)
        except LogUnavailable as error:
            place.audience.step(f"trying again: {error}")
        except Occupied:
            _tell_waiting(place, result, readers(place.control, place.projection))
            time.sleep(random.uniform(1, 3) * _PAUSE_S)  # noqa: S311  (it is no secret)
        else:
            return


def _wait_out(place: Workplace, loading: Loading, result: Result) -> None:
    """Wait until no transaction sees the database as it was before the hand-over."""
    left = {(each.pid, each.since, each.snapshot) for each in snapshots(place.control)}
    while left:
        now = snapshots(place.control)
        still = [each for each in now if (each.pid, each.since, each.snapshot) in left]
        left = {(each.pid, each.since, each.snapshot) for each in still}
        _tell_waiting(place, result, still)
        loading.catch_up(SMALL_REST)
        if left:
            time.sleep(_PAUSE_S)


def _tell_waiting(place: Workplace, result: Result, sessions: list[Session]) -> None:
    """Name those who have been there for longer than a moment."""
    lasting = [session for session in sessions if session.age_s > _MOMENT_S]
    place.audience.waiting(lasting)
    result.waited_for += [words for words in map(str, lasting) if words not in result.waited_for]


def _drop_older(place: Workplace, live: GenerationRow | None) -> None:
    """Keep one previous generation: what was live until now."""
    for each in place.all():
        if each.state == "previous" and (live is None or each.number != live.number):
            try:
                place.drop(each)
            except Misconfigured as error:
                place.audience.step(f"kept: {error}")
