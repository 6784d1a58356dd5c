"""Calling services: circuit breakers and load balancers. They are pure: time, randomness and load come in as arguments."""
