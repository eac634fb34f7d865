"""Rows that are half done: what another process needs to go on with them, bit for bit."""
