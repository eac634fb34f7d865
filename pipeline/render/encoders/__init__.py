"""Text encoders: what they returned is remembered, kept in the output, and their weights parked."""
