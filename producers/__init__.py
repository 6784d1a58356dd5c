"""What comes in: the publisher, the OpenTelemetry pieces, the log handler, and the doors for other programs."""
