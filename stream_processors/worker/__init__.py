"""A worker: the Faust app, its Kafka transport, the committer, lag watch, health and metrics."""
