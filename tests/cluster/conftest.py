"""Servers that any test in this folder may ask for."""

from tests.servers import s3_process, s3_server

__all__ = ["s3_process", "s3_server"]
