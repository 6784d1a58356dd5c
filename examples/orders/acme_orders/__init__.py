"""Stock, and the orders that take from it. avro/ has the schema of each event, catalogue.json their ids."""
