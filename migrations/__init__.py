"""How journal, checkpoints, roles and functions came to be: Alembic revisions, applied by `upgrade`.

Projection tables are not here: a generation creates them from its table definitions (projections/generations/lifecycle.py).
"""

from importlib.resources import files

from alembic import command
from alembic.config import Config

from spanfold.postgres.dsn import sqlalchemy_url


def alembic_config(url: str) -> Config:
    """Alembic, pointed at this package and at that database."""
    config = Config()
    config.set_main_option("script_location", str(files("spanfold.migrations")))
    config.set_main_option("sqlalchemy.url", url.replace("%", "%%"))
    return config


def upgrade(dsn: str, revision: str = "head") -> None:
    """Bring the database at `dsn` (postgresql://…) to `revision`; several may try at once, one does it."""
    command.upgrade(alembic_config(sqlalchemy_url(dsn)), revision)
