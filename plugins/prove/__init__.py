"""Certificates with random rows of an output, which anybody can check by rendering these rows again."""
