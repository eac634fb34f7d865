"""What a job needs of installed software: libraries, attention kernels, a compiler, fonts, encoders."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from importlib import metadata
from importlib.util import find_spec

from framefleet.pipeline.model.environment import source_fingerprint, version_of
from framefleet.plugins.doctor.machine import has_gpu
from framefleet.plugins.doctor.results import LIMIT_S, Check, CheckResult, error, ok, warning

_SHOWN = ("framefleet", "torch", "diffusers", "transformers", "ray", "av")
# In a process of its own: it takes memory of the GPU, and libraries may end it.
_ATTENTION = """
import torch
from framefleet.pipeline.model.options.attention import candidates, works
device, dtype = ("cuda", torch.bfloat16) if torch.cuda.is_available() else ("cpu", torch.float32)
print(device, torch.__version__)
print(*(name for name in candidates(device) if works(name, device=device, dtype=dtype)))
"""
# What torch.compile's C++ and Triton's launchers include.
_SOURCE = "#include <Python.h>\n#include <omp.h>\n"
_SCRIPTS = {"Latin": "a", "Chinese": "\u8bb0", "Japanese": "\u3042", "Korean": "\ud55c", "Cyrillic": "\u0416"}
_SCRIPTS |= {"Arabic": "\u0639", "Hindi": "\u0939", "Hebrew": "\u05d0", "Thai": "\u0e01"}


def versions() -> dict[str, str]:
    """Return what must be equal on all machines of a cluster."""
    platform_versions = {"python": platform.python_version(), "source": source_fingerprint()[:12]}
    return platform_versions | {name: version_of(name) for name in _SHOWN}


def inspect_libraries() -> Iterator[CheckResult]:
    """Yield requirements of framefleet's that what is installed does not meet."""
    from packaging.requirements import Requirement

    wanted = [Requirement(text) for text in metadata.requires("framefleet") or ()]
    wrong = [
        f"{one.name}{one.specifier} is needed, and {version_of(one.name) or 'none'} is installed"
        for one in wanted
        if one.marker is None or one.marker.evaluate({"extra": ""})
        if not one.specifier.contains(version_of(one.name) or "0", prereleases=True)
    ]
    if wrong:
        yield error("; ".join(wrong), "install framefleet again in an environment of its own")
    yield ok(", ".join(f"{name} {version}" for name, version in versions().items() if name != "source"))


def inspect_attention() -> Iterator[CheckResult]:
    """Yield the attention backends of `auto`, the fastest first; also whether torch finds the GPU."""
    command = [sys.executable, "-P", "-c", _ATTENTION]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S)
    if ended.returncode:
        last = ended.stderr.strip().rpartition("\n")[2] or f"exit code {ended.returncode}"
        yield error(f"torch or diffusers cannot be used: {last}", "install framefleet again")
        return
    torch, names = ended.stdout.splitlines()
    device, _, version = torch.partition(" ")
    if device == "cpu" and has_gpu():
        yield error(
            f"torch {version} does not find the GPU that nvidia-smi shows",
            "install a torch that is built for the CUDA of the driver; check CUDA_VISIBLE_DEVICES",
        )
    yield ok(f"on {device}: {names or 'none'}")


def inspect_compiler() -> Iterator[CheckResult]:
    """Yield whether `compile` can work: a C++ compiler with OpenMP and Python's headers; Triton on a GPU."""
    fix = "apt install g++ python3-dev (conda: gxx); only `model: {compile: ...}` needs it"
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        yield warning("no C++ compiler (g++)", fix)
        return
    include = f"-I{sysconfig.get_paths()['include']}"
    command = [compiler, "-x", "c++", "-fsyntax-only", "-fopenmp", include, "-"]
    ended = subprocess.run(command, input=_SOURCE, capture_output=True, text=True, timeout=LIMIT_S)
    if ended.returncode:
        message = next((line for line in ended.stderr.splitlines() if "error" in line), ended.stderr[:200])
        yield warning(f"{compiler} fails: {message.strip()}", fix)
    elif has_gpu() and find_spec("triton") is None:
        yield warning("Triton is not installed", "install a torch that is built for CUDA, which brings it")
    else:
        yield ok(f"{compiler} compiles" + (", and Triton is there" if find_spec("triton") else ""))


def inspect_fonts() -> Iterator[CheckResult]:
    """Yield which scripts of titles, on sheets and grids, have a font."""
    from framefleet.plugins.pictures.lettering import font_with

    missing = [name for name, character in _SCRIPTS.items() if font_with(character) is None]
    note = f"; for {', '.join(missing)}: apt install fontconfig fonts-noto-core" if missing else ""
    yield ok(f"fonts for {', '.join(name for name in _SCRIPTS if name not in missing)}{note}")


def inspect_encoders() -> Iterator[CheckResult]:
    """Yield which video encoders work, by encoding two frames with each."""
    import numpy as np

    from framefleet.pipeline.errors import FramefleetError
    from framefleet.pipeline.outputs.media.media import encode
    from framefleet.pipeline.outputs.media.media_settings import VIDEO_ENCODERS, Media

    frames = np.zeros((2, 160, 160, 3), np.uint8)  # NVENC takes no smaller ones
    failing = []
    names = [(format, name) for format, encoders in VIDEO_ENCODERS.items() for name in encoders]
    for format, name in names if has_gpu() else [one for one in names if one[1] != "h264_nvenc"]:
        try:
            encode(frames, media=Media(format=format, encoder=name), fps=16, metadata={})
        except FramefleetError:
            failing.append(name)
    if failing:
        yield warning(f"{', '.join(failing)} cannot be used", "pip install --force-reinstall av")
    else:
        yield ok("all video encoders work")


SOFTWARE_CHECKS: dict[str, Check] = {
    "libraries": inspect_libraries,
    "attention": inspect_attention,
    "compiler": inspect_compiler,
    "fonts": inspect_fonts,
    "encoders": inspect_encoders,
}
