"""The application core: domain model, aggregates, commands, queries, their buses, and the ports. Knows no server."""
