"""`spanfold prune`: deletes what the settings call old and nothing needs any more.

parts.py says what a part of the work is; log.py, journals.py and tables.py each plan their parts and carry them out; pruning.py
plans all of it and runs it. What a run that was killed has left, the next one does.
"""

from spanfold.stream_processors.prune.parts import Part
from spanfold.stream_processors.prune.pruning import PrunePlan, prune_plan

__all__ = ["Part", "PrunePlan", "prune_plan"]
