"""Which machine and which libraries a GPU day was on."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib import metadata
from importlib.util import find_spec

import torch

from tools.benchmarks.results import Tell

PACKAGES = (
    *("torch", "triton", "diffusers", "transformers", "torchao"),
    *("flash_attn_interface", "flash_attn", "sageattention"),
)


def run(_: Sequence[str], tell: Tell) -> None:
    for number in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(number)
        tell(
            {
                "gpu": properties.name,
                "compute capability": f"{properties.major}.{properties.minor}",
                "memory GiB": round(properties.total_memory / 2**30, 1),
                "multiprocessors": properties.multi_processor_count,
            }
        )
    cudnn = torch.backends.cudnn.version()
    tell({"python": platform.python_version(), "cuda": torch.version.cuda, "cudnn": cudnn})
    for package in PACKAGES:
        is_there = find_spec(package) is not None
        tell({"package": package, "version": _version(package), "can be imported": is_there})


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""
