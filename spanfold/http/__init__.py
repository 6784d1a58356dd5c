"""HTTP in one place: health, metrics, body limits, problem details, and the API for commands and queries."""
