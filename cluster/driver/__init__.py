"""The one process of a job that decides: table in, records out."""
