"""From a job's settings to what this machine lacks for them. Starts nothing; imports Ray where it must."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from framefleet.cluster.fleet.settings import FleetSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Lack:
    """What this machine lacks. key: of the job, whose value cannot be had here."""

    key: tuple[str, ...]
    problem: str
    fix: str


def lacking_gpu(fleet: FleetSettings, devices: Mapping[tuple[str, ...], str]) -> Lack | None:
    """Return what asks for a GPU that workers would need here; None if there is one, or none is needed.

    devices: what models are to be on, each by its key in the job.
    """
    if fleet.address is not None:
        return None
    gpus = 0.0 if fleet.gpus_per_worker == "auto" else fleet.gpus_per_worker
    keys: list[tuple[str, ...]] = [("fleet", "gpus_per_worker")] if gpus else []
    keys += [key for key, device in devices.items() if device.startswith("cuda")]
    if not keys or num_gpus_here():
        return None
    value = devices.get(keys[0], f"{gpus:g}")
    return Lack(
        key=keys[0],
        problem=f"{'.'.join(keys[0])} is {value}, and this machine has no GPU",
        fix="leave it out to render on the CPU, or name a cluster with `fleet.address`",
    )


def num_gpus_here() -> int:
    """Return how many GPUs Ray would find on this machine."""
    from ray._private.accelerators import get_all_accelerator_managers

    managers = [one for one in get_all_accelerator_managers() if one.get_resource_name() == "GPU"]
    return sum(one.get_current_node_num_accelerators() for one in managers)
