"""How records come out of Kafka's record batches, in bounded memory whatever a batch holds (docs/adr/0026)."""
