"""The contract: one .avsc per event type and released version, the catalogue of their ids, and the codec bytes ⇄ event."""
