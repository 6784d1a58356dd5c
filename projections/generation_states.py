"""The states of a projection's generations, as spanfold_core.generations and the view spanfold.projections have them."""

from collections.abc import Iterable
from enum import StrEnum
from typing import Final


class GenerationState(StrEnum):
    """Who keeps a generation up to date, and who reads it."""

    LOADING = "loading"
    """A rebuild or a verification folds it from the log; workers leave it alone."""
    FOLLOWING = "following"
    """Complete: workers fold it together with the live one, in the same transactions. It is about to become live."""
    LIVE = "live"
    """What the public views show."""
    PREVIOUS = "previous"
    """What was live before: kept for a rollback, folded by nobody."""
    AS_OF = "as_of"
    """A moment of the past, with views in a schema of its own; folded by nobody once it is loaded."""


KEPT_UP: Final = (GenerationState.LIVE, GenerationState.FOLLOWING)
"""Workers keep these up with the log, unless they are suspended."""

UNFINISHED: Final = (GenerationState.LOADING, GenerationState.FOLLOWING)
"""A rebuild is at work on these, or was killed and has left them so."""

LOADED_IN_BULK: Final = (GenerationState.LOADING, GenerationState.AS_OF)
"""A replay of the log fills these; they get their secondary indexes afterwards."""

AT_REST: Final = (GenerationState.PREVIOUS, GenerationState.AS_OF)
"""Nobody folds these; an erasure takes its trace out of them all the same."""


def kept_up(table: str) -> str:
    """The condition in SQL that workers keep a generation up, on rows of spanfold_core.generations under this alias."""
    return f"{table}.state IN {sql_list(KEPT_UP)} AND {table}.suspended_at IS NULL"


def sql_list(states: Iterable[GenerationState]) -> str:
    """The states as SQL has them behind IN: ('live', 'following')."""
    return "({})".format(", ".join(f"'{state}'" for state in states))
