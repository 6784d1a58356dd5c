"""Keeps a generation that workers do not carry yet up to date, until they do: how new code is rolled out."""

import time
from contextlib import closing
from typing import Final

from spanfold.stream_processors.rebuild.loading import Loading, Workplace

PAUSE_S: Final = 0.2

ALONE_S: Final = 15.0
"""For so long workers must have kept a generation up to date without help: a partition may be quiet, or change hands."""


def follow(place: Workplace) -> None:
    """See _follow; of the live generation, which workers that run may not carry."""
    live = place.in_state("live")
    if live is not None:
        with closing(Loading(place, live, 0)) as loading:
            _follow(place, loading)


def _follow(place: Workplace, loading: Loading) -> None:
    """Keep the generation up to date until workers of this code do: until somebody else moves it, and nothing has been left
    to this process for a while.
    """
    place.audience.step("following the log until workers of this version take over (Ctrl-C: leave it to them)")
    left_at, taken, needed = loading.positions(), False, time.monotonic()
    while not taken or time.monotonic() - needed < ALONE_S:
        judged = place.judged()  # before the positions: a worker that folds the generation moves both in one commit
        now = loading.positions()
        taken = taken or any(position > left_at[at] for at, position in now.items())
        own = {at: end for at, end in judged.items() if end > now[at]}
        if own:
            loading.load({**now, **own})
            needed = time.monotonic()
        left_at = {**now, **own}
        time.sleep(PAUSE_S)
