"""The head of a Ray cluster, asked with a time limit: which machines there are, and which are to go soon.

Not by `ray.nodes()`, which waits without a limit, says nothing of machines that are about to go (spot ones,
or sent SIGTERM), and ends this process where another cluster answers in the head's place.
Ray Serve asks in this way too:
https://github.com/ray-project/ray/blob/master/python/ray/serve/_private/cluster_node_info_cache.py
"""

from __future__ import annotations

from typing import Any

import ray

_ALIVE = 0  # GcsNodeInfo.ALIVE
_LIMIT_S = 5.0


class Head:
    """That of the cluster which this process has joined."""

    def __init__(self) -> None:
        address = ray.get_runtime_context().gcs_address
        self._client = ray._raylet.GcsClient(address=address)  # type: ignore[attr-defined]  # compiled

    def nodes(self) -> list[dict[str, Any]]:
        """Return all machines, as `ray.nodes()` does, and whether each is to go soon: `Draining`."""
        draining = self._client.get_draining_nodes(timeout=_LIMIT_S)
        return [
            {
                "NodeID": node_id.hex(),
                "Alive": node.state == _ALIVE,
                "Draining": node_id.hex() in draining,
                "NodeManagerHostname": node.node_manager_hostname,
                "NodeManagerAddress": node.node_manager_address,
                "NodeManagerPort": node.node_manager_port,
                "Resources": dict(node.resources_total),
            }
            for node_id, node in self._client.get_all_node_info(timeout=_LIMIT_S).items()
        ]
