"""How spanfold talks to a Kafka broker: security, topics, log ends, and what errors mean."""
