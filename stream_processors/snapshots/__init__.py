"""The snapshot worker: folds the topics into states of aggregates, takes snapshots, and feeds those to the compacted topic."""
