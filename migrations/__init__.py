"""Alembic revisions for journals, checkpoints, functions and the reader's role; `upgrade` applies them.

Tables of projections are not here: a generation creates them from its table definitions (projections/generations/lifecycle.py).
"""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from alembic.config import Config

# Alembic is imported where it is used: commands that only ask import this module, and do without it


def alembic_config() -> Config:
    """The configuration of Alembic for the revisions of this package."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(files("spanfold.migrations")))
    return config


def upgrade(dsn: str, revision: str = "head") -> None:
    """Migrate the database at `dsn` (postgresql://…) to `revision`. Processes that call it at once wait for each other.
    Misconfigured when the database is not what it must be; see requirements.py.
    """
    from alembic import command

    config = alembic_config()
    config.attributes["dsn"] = dsn
    command.upgrade(config, revision)
