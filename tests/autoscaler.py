"""A Ray cluster whose machines Ray's own autoscaler adds and takes away: on loopback, each one CPU."""

from __future__ import annotations

import json
import os
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest import mock

from ray.autoscaler._private.fake_multi_node.node_provider import (
    FAKE_HEAD_NODE_ID,
    FAKE_HEAD_NODE_TYPE,
    FakeMultiNodeProvider,
)

from tests.servers import free_port, ray_head

IDLE_S = 6.0  # until a machine without a worker is taken away
OBJECT_STORE_BYTES = 80_000_000  # Ray wants 75 MB
READY_WITHIN_S = 240.0


class Provider(FakeMultiNodeProvider):  # type: ignore[misc]
    """Ray's own for tests of its autoscaler, which starts a raylet for each machine, on loopback."""

    def _create_node_with_resources_and_labels(self, *arguments: Any) -> None:
        with mock.patch("ray.util.get_node_ip_address", return_value="127.0.0.1"):
            super()._create_node_with_resources_and_labels(*arguments)


@contextmanager
def autoscaled_cluster(*, max_machines: int) -> Iterator[str]:
    """Yield the address of the head, which has no CPU to give."""
    port = free_port()
    address = f"127.0.0.1:{port}"
    with tempfile.TemporaryDirectory(prefix="as-", ignore_cleanup_errors=True) as name:  # short: sockets
        folder = Path(name)
        (folder / "cluster.yaml").write_text(json.dumps(_config(address, max_machines)))
        options = ("--num-cpus=0", "--include-dashboard=false", f"--object-store-memory={OBJECT_STORE_BYTES}")
        with ray_head(
            folder,
            port,
            *options,
            f"--autoscaling-config={folder / 'cluster.yaml'}",
            RAY_FAKE_CLUSTER="1",
            RAY_enable_autoscaler_v2="1",
            AUTOSCALER_UPDATE_INTERVAL_S="1",
            RAY_CLOUD_INSTANCE_ID=FAKE_HEAD_NODE_ID,
            RAY_OVERRIDE_NODE_ID_FOR_TESTING=FAKE_HEAD_NODE_ID,
        ):
            yield address
            for pid in _processes_of(folder):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def _config(address: str, max_machines: int) -> dict[str, Any]:
    resources = {"CPU": 1, "object_store_memory": OBJECT_STORE_BYTES}
    return {
        "cluster_name": "test",
        "max_workers": max_machines,
        "upscaling_speed": 1.0,
        "idle_timeout_minutes": IDLE_S / 60,
        "provider": {
            "type": "external",
            "module": "tests.autoscaler.Provider",
            "gcs_address": address,
            "head_node_id": FAKE_HEAD_NODE_ID,
            "launch_multiple": True,
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
        },
        "available_node_types": {
            FAKE_HEAD_NODE_TYPE: {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            "machine": {"resources": resources, "node_config": {}, "max_workers": max_machines},
        },
        "head_node_type": FAKE_HEAD_NODE_TYPE,
        "auth": {},
        "file_mounts": {},
        "cluster_synced_files": [],
        "file_mounts_sync_continuously": False,
        "rsync_exclude": [],
        "rsync_filter": [],
        **{
            f"{name}_commands": []
            for name in (
                "initialization",
                "setup",
                "head_setup",
                "worker_setup",
                "head_start_ray",
                "worker_start_ray",
            )
        },
    }


def _processes_of(folder: Path) -> list[int]:
    """Return the processes that name this folder in their command: raylets and what they started."""
    found = []
    for process in Path("/proc").iterdir():
        with suppress(OSError):
            if process.name.isdigit() and str(folder).encode() in (process / "cmdline").read_bytes():
                found.append(int(process.name))
    return found
