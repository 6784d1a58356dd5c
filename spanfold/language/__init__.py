"""The language: events, topics, ids, positions, times, settings and errors. Pure: no Kafka, no Postgres, no web framework."""
