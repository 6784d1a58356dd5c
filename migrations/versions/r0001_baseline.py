"""The baseline: tables that workers write (spanfold_core), views that people query (spanfold), and a role that may only read."""

from importlib.resources import files
from typing import Final

from alembic import op

revision = "0001"
down_revision = None

SCRIPTS: Final = (
    "schemas",
    "trace_hex",
    "topics",
    "generations",
    "checkpoints",
    "projections",
    "rejected",
    "parked",
    "appends",
    "snapshots",
    "erased",
    "retention",
    "suspensions",
    "histograms",
    "duration_histograms",
    "reader",
)
"""Files of r0001_baseline/, in the order in which they depend on each other."""


def upgrade() -> None:
    folder = files("spanfold.migrations") / "versions" / "r0001_baseline"
    for name in SCRIPTS:
        op.execute((folder / f"{name}.sql").read_text("utf-8"))
