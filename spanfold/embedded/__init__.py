"""A real Kafka and a real Postgres on one machine, without Docker.

`stack.EmbeddedStack` boots, supervises and stops them; `stack_state.read_state` and `stop_running` are about one that
another process supervises. Only what starts a server needs the `embedded` extra, and says so where it is missing.
"""
