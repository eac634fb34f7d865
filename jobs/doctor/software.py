"""What a job needs of installed software: libraries, attention kernels, a compiler, fonts, encoders."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from framefleet.jobs.doctor.gpus import has_gpu
from framefleet.jobs.doctor.results import LIMIT_S, CheckResult, error, ok, warning

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
_SOURCE = "#include <Python.h>\n#include <omp.h>\nint count() { return omp_get_max_threads(); }\n"
_SCRIPTS = {"Latin": "a", "Chinese": "\u8bb0", "Japanese": "\u3042", "Korean": "\ud55c", "Cyrillic": "\u0416"}
_SCRIPTS |= {"Arabic": "\u0639", "Hindi": "\u0939", "Hebrew": "\u05d0", "Thai": "\u0e01"}
_PACKAGED = 4  # of these, the first: fonts for them come with framefleet


def versions() -> dict[str, str]:
    """Return what must be equal on all machines of a cluster."""
    from framefleet.pipeline.model.environment import source_fingerprint

    found = {"python": platform.python_version(), "source": source_fingerprint()[:12]}
    return found | {name: metadata.version(name) for name in _SHOWN if _is_installed(name)}


def inspect_libraries() -> Iterator[CheckResult]:
    """Yield requirements of framefleet's that what is installed does not meet."""
    from packaging.requirements import Requirement

    wrong = []
    for text in metadata.requires("framefleet") or ():
        wanted = Requirement(text)
        if wanted.marker and not wanted.marker.evaluate({"extra": ""}):
            continue
        has = metadata.version(wanted.name) if _is_installed(wanted.name) else None
        if has is None or not wanted.specifier.contains(has, prereleases=True):
            wrong.append(f"{wanted.name}{wanted.specifier} is needed, and {has or 'none'} is installed")
    if wrong:
        yield error("; ".join(wrong), "install framefleet again in an environment of its own")
    else:
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
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "check.cpp")
        source.write_text(_SOURCE)
        includes = f"-I{sysconfig.get_paths()['include']}"
        command = [
            compiler,
            "-shared",
            "-fPIC",
            "-fopenmp",
            includes,
            str(source),
            "-o",
            f"{folder}/check.so",
        ]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S)
    if ended.returncode:
        said = next((line for line in ended.stderr.splitlines() if "error" in line), ended.stderr[:200])
        yield warning(f"{compiler} fails: {said.strip()}", fix)
    elif has_gpu() and find_spec("triton") is None:
        yield warning("Triton is not installed", "install a torch that is built for CUDA, which brings it")
    else:
        yield ok(f"{compiler} compiles" + (", and Triton is there" if find_spec("triton") else ""))


def inspect_fonts() -> Iterator[CheckResult]:
    """Yield which scripts of titles, on sheets and grids, have a font."""
    from framefleet.pipeline.outputs.media.fonts import font_with

    has_font = {name: font_with(character) is not None for name, character in _SCRIPTS.items()}
    missing = [name for name, has in has_font.items() if not has]
    if set(missing) & set(list(_SCRIPTS)[:_PACKAGED]):
        yield warning(
            f"no font for {', '.join(missing)}", "install framefleet again: notojp-matplotlib is missing"
        )
        return
    found = ", ".join(name for name, has in has_font.items() if has)
    note = f"; for {', '.join(missing)}: apt install fonts-noto-core" if missing else ""
    yield ok(f"fonts for {found}{note}")


def inspect_encoders() -> Iterator[CheckResult]:
    """Yield which video encoders work, by encoding two frames with each."""
    import numpy as np

    from framefleet.pipeline.errors import FramefleetError
    from framefleet.pipeline.outputs.media.media import encode
    from framefleet.pipeline.outputs.media.media_settings import VIDEO_ENCODERS, Media

    frames = np.zeros((2, 160, 160, 3), np.uint8)  # NVENC takes no smaller ones
    working, failing = [], []
    for format, encoders in VIDEO_ENCODERS.items():
        for encoder in encoders:
            try:
                encode(frames, media=Media(format=format, encoder=encoder), fps=16, metadata={})
                working.append(encoder)
            except FramefleetError:
                failing.append(encoder)
    needed = [name for name in failing if name != "h264_nvenc" or has_gpu()]
    if needed:
        yield warning(f"{', '.join(needed)} cannot be used", "pip install --force-reinstall av")
    yield ok(f"{', '.join(dict.fromkeys(working))} encode")


def _is_installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True
