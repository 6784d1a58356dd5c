"""Alembic revisions for journals, checkpoints, functions and the reader's role; `upgrade` applies them.

Tables of projections are not here: a generation creates them from its table definitions (projections/generations/lifecycle.py).
"""

from importlib.resources import files

from alembic import command
from alembic.config import Config

from spanfold.postgres.dsn import sqlalchemy_url


def alembic_config(url: str) -> Config:
    """The configuration of Alembic for the revisions of this package and this database."""
    config = Config()
    config.set_main_option("script_location", str(files("spanfold.migrations")))
    config.set_main_option("sqlalchemy.url", url.replace("%", "%%"))
    return config


def upgrade(dsn: str, revision: str = "head") -> None:
    """Migrate the database at `dsn` (postgresql://…) to `revision`. Processes that call it at once wait for each other."""
    command.upgrade(alembic_config(sqlalchemy_url(dsn)), revision)
