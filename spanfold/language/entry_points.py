"""Entry points of installed packages: what they name is loaded, or the error says which package is wrong and where."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING, Any

from spanfold.language.errors import Misconfigured, SpanfoldError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint


def load(entry: EntryPoint) -> Any:
    """What the entry point names. Misconfigured, with the package's own line, when its code raises."""
    try:
        return entry.load()
    except SpanfoldError:
        raise
    except Exception as error:
        lines = traceback.extract_tb(error.__traceback__)
        where = f" ({lines[-1].filename}, line {lines[-1].lineno})" if lines else ""
        raise Misconfigured(
            f"entry point {entry.group}: {entry.name} = {entry.value} can't be loaded: "
            f"{type(error).__name__}: {error}{where}. Mend or uninstall that package"
        ) from error
