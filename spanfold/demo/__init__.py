"""The demo's real program: a shop of three services (shop), a load on it (load, run) and what Postgres then shows (report)."""
