"""States of aggregates, folded from the log beside the read models, and the snapshots that are taken of them.

At each position of the snapshot worker, `states` and the `snapshots` of all other aggregates stand together for the accepted
records of the log up to there, and nothing else.
"""

from spanfold.projections.states.store import Folding, NotJudgedYet, PreparedStates, StateStore

__all__ = ["Folding", "NotJudgedYet", "PreparedStates", "StateStore"]
