"""Servers that any test in this folder may ask for."""

from __future__ import annotations

from tests.servers import ray_cluster, s3_process, s3_server

__all__ = ["ray_cluster", "s3_process", "s3_server"]
