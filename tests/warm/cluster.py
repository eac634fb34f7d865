"""A Ray cluster with room for two workers: prints its address, and ends with its standard input."""

from __future__ import annotations

import sys
from typing import Any

import ray

if __name__ == "__main__":
    cluster: Any = ray.init("local", num_cpus=3, include_dashboard=False, object_store_memory=2**27)
    print("at", cluster.address_info["address"], flush=True)
    sys.stdin.read()
    ray.shutdown()
