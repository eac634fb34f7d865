"""Render batch files of OpenAI's batch API: from lines of requests to lines of results."""
