"""Faults: workers, Kafka and Postgres are killed, stopped and cut off under load; the tables equal the log all the same.

`python -m tests.faults` runs seeded schedules; test_*.py runs a few of them. servers.py can kill and stop what it starts,
worker.py is a worker that can be told to die at a named point, load.py publishes, injuries.py has the faults, schedule.py runs
them, reference.py reads the log and says what the tables must be.
"""
