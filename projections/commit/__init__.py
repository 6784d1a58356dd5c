"""How a batch becomes rows: verdicts, decoding, journals, parked records, erasure, and the store that commits them."""
