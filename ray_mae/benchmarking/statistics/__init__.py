"""What may be said of encoders, from what their fits said of the test patients."""
