"""What flows: the Faust apps, the batch transport, the projector."""
