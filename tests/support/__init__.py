"""What the tests share.

servers.py boots Kafka and Postgres once for a whole run (jvm.py makes that cheap), databases.py and topics.py give each test its
own place on them, workers.py and commands.py start spanfold's processes (forkserver.py makes that cheap), waiting.py waits.
strategies.py, stories.py and load.py make events, tables.py and generations.py look at what became of them.

Fixtures are registered by tests/conftest.py; everything else is imported from here.
"""
