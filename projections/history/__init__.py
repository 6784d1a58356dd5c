"""What the event store reads: an aggregate's history, verdicts on appends, snapshots, the journal's progress."""
