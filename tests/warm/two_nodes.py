"""A Ray cluster of two machines with room for a worker each, on this one: prints its address.

A line on its standard input drains one of them, as a cloud does that takes it away; it ends with the input.
"""

from __future__ import annotations

import sys
import time

import ray
from ray.cluster_utils import Cluster
from ray.core.generated import autoscaler_pb2

NOTICE_S = 60.0

if __name__ == "__main__":
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    print("at", cluster.address, flush=True)
    for _ in sys.stdin:
        ray._raylet.GcsClient(address=cluster.address).drain_node(
            nodes[0].node_id,
            autoscaler_pb2.DrainNodeReason.DRAIN_NODE_REASON_PREEMPTION,
            "a cloud takes it away",
            int((time.time() + NOTICE_S) * 1000),
        )
    cluster.shutdown()
