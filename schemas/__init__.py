"""The contract: one .avsc file per event type and version, the catalogue of schema ids, and the codec bytes ⇄ event."""
