"""The event store on Kafka and Postgres keeps its port's contract, and says what it does not know."""

from tests.contracts.event_store import EventStoreContract


class TestKafkaEventStore(EventStoreContract):
    """The fixture `store` is this folder's."""
