"""Servers that any test in this folder may ask for; and the order of its files."""

from __future__ import annotations

import pytest

from tests.servers import ray_cluster, s3_process, s3_server

__all__ = ["pytest_collection_modifyitems", "ray_cluster", "s3_process", "s3_server"]

# The longest: drivers start anew after every kill, or cold. Begun last, one core would finish them alone.
LONGEST = ("test_training", "test_weights", "test_kills", "test_benchmarks")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files that take longest first."""
    order = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.stem, len(order)))  # stable: else as they were
