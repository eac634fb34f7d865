"""Batch files: lines of requests, as OpenAI's batch API takes them, rendered into lines of results."""
