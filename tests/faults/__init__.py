"""Faults: workers, Kafka and Postgres are killed, stopped and cut off under load; the tables equal the log all the same.

`python -m tests.faults` runs seeded schedules; test_*.py runs a few of them. worker.py and snapshot_worker.py are workers that
can be told to die at a named point (trap.py), injuries.py and feeder_injuries.py have the faults, schedule.py runs them,
reference.py and states.py read the log and say what the tables, and the states of aggregates, must be. The servers that are
injured, and the load, are in tests/support.
"""
