"""A Ray cluster with room for two workers: prints its address, and ends with its standard input."""

from __future__ import annotations

import sys
import tempfile
from typing import Any

import ray

if __name__ == "__main__":
    with tempfile.TemporaryDirectory(
        prefix="ray-"
    ) as folder:  # for this user alone, as joining it warns otherwise
        cluster: Any = ray.init(
            "local", num_cpus=3, include_dashboard=False, object_store_memory=2**27, _temp_dir=f"{folder}/ray"
        )
        print("at", cluster.address_info["address"], flush=True)
        sys.stdin.read()
        ray.shutdown()
