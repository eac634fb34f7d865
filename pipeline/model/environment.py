"""What else decides the bits of a clip: libraries, processor, numerics. Recorded with each clip."""

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

MAX_CPU_ISA = "ONEDNN_MAX_CPU_ISA"  # which instructions kernels may use, and so bits; see `prove_place`
PACKAGES = ("diffusers", "transformers", "accelerate", "peft", "numpy", "av")


def environment(
    device: str, dtype: ResolvedDType, numerics: Numerics, *, packages: Collection[str] = ()
) -> dict[str, Any]:
    """Return what a record says about where it was rendered. packages: more that decide bits here."""
    import torch

    models = lines_beginning("/proc/cpuinfo", ("model name",))
    processor = models[0].partition(":")[2].strip() if models else platform.processor()
    facts: dict[str, Any] = {
        "framefleet": framefleet.__version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),  # a class of torch's, which readers of a pickle would import
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
    """Return what computed there: the name of the GPU, or of the processor where there is none."""
    return str(environment.get("gpu") or environment.get("cpu") or "")


def source_fingerprint() -> str:
    """SHA-256 over framefleet's own source files: two processes with equal ones run the same code."""
    root = Path(framefleet.__file__).parent
    digest = hashlib.sha256()
    folders = os.walk(root, followlinks=True)  # the checkout's package holds links
    paths = (Path(folder) / file for folder, _, files in folders for file in files)
    for path in sorted(path for path in paths if path.suffix in (".py", ".toml")):
        digest.update(f"{path.relative_to(root)}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def version_of(package: str) -> str:
    """Return the version of an installed package; "" where there is none."""
    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version(package)
    return ""


def lines_beginning(path: str, beginnings: tuple[str, ...]) -> list[str]:
    """Return the different lines of a file that begin so; none where there is no such file."""
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return []
    return sorted({line for line in lines if line.startswith(beginnings)})
