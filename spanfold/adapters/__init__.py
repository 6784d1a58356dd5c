"""Adapters of the application's ports: Kafka and Postgres, webhooks, the environment."""
