"""What decides a clip's bits besides its row: libraries, processor, numerics. Recorded with each clip."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
from collections.abc import Collection, Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import framefleet
from framefleet.pipeline.model.specs.dtypes import ResolvedDType

if TYPE_CHECKING:
    from framefleet.pipeline.model.numerics import Numerics

MAX_CPU_ISA = "ONEDNN_MAX_CPU_ISA"  # the instructions that kernels may use, which decide bits: `prove_place`
PACKAGES = ("diffusers", "transformers", "accelerate", "peft", "numpy", "av")


def environment(
    device: str, dtype: ResolvedDType, numerics: Numerics, *, packages: Collection[str] = ()
) -> dict[str, Any]:
    """Return what a record says about where it was rendered. packages: others that decide bits."""
    import torch

    models = lines_beginning("/proc/cpuinfo", ("model name",))
    processor = models[0].partition(":")[2].strip() if models else platform.processor()
    facts: dict[str, Any] = {
        "framefleet": framefleet.__version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),  # torch's own class, which readers of a pickle would import
        "device": device,
        "dtype": dtype,
        "threads": numerics.threads,
        "cpu": f"{processor} ({torch.backends.cpu.get_cpu_capability()})",
    }
    facts |= {package: version_of(package) for package in (*PACKAGES, *packages)}
    if isa := os.environ.get(MAX_CPU_ISA):
        facts[MAX_CPU_ISA.lower()] = isa
    if device.startswith("cuda"):
        capability = torch.cuda.get_device_capability(device)
        facts |= {
            "gpu": torch.cuda.get_device_name(device),
            "compute_capability": f"{capability[0]}.{capability[1]}",
            "cuda": torch.version.cuda or "",
            "cudnn": torch.backends.cudnn.version() or 0,  # type: ignore[no-untyped-call]
            "tf32": int(torch.backends.cuda.matmul.fp32_precision == "tf32"),  # however it was set
        }
    return facts | ({"matmul": numerics.matmul} if numerics.matmul else {})


def device_name(environment: Mapping[str, Any]) -> str:
    """Return the name of the GPU, or without one of the processor."""
    return str(environment.get("gpu") or environment.get("cpu") or "")


def source_fingerprint() -> str:
    """Return the SHA-256 of framefleet's source files: if equal, two processes run the same code."""
    root = Path(framefleet.__file__).parent
    digest = hashlib.sha256()
    folders = os.walk(root, followlinks=True)  # the checkout's package holds links
    paths = (Path(folder) / file for folder, _, files in folders for file in files)
    for path in sorted(path for path in paths if path.suffix in (".py", ".toml")):
        digest.update(f"{path.relative_to(root)}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def version_of(package: str) -> str:
    """Return the version of an installed package; "" if it is not installed."""
    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version(package)
    return ""


def lines_beginning(path: str, beginnings: tuple[str, ...]) -> list[str]:
    """Return the distinct lines of a file that begin with any of these; [] if it does not exist."""
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return []
    return sorted({line for line in lines if line.startswith(beginnings)})
