"""Who hears what is being done, while it takes its time: the command line shows it, HTTP reports it."""

from collections.abc import Sequence
from typing import Final, Protocol


class ProgressListener(Protocol):
    """Hears of the steps of an operation. What a listener raises ends the operation in order, as Ctrl-C does."""

    def step(self, text: str) -> None:
        """A step begins."""

    def advanced(self, done: int, total: int, unit: str) -> None:
        """So many of the step's units are done; `unit` is their name in the plural."""

    def waiting(self, holders: Sequence[str]) -> None:
        """These sessions hold the operation up; none any more when there are none."""


class NullProgress:
    """Hears everything and shows nothing."""

    def step(self, text: str) -> None: ...

    def advanced(self, done: int, total: int, unit: str) -> None: ...

    def waiting(self, holders: Sequence[str]) -> None: ...


NO_PROGRESS: Final = NullProgress()
