"""The parts of a denoiser that must run as a whole: compiled regions, and modules offloaded together.

`render/fused/exact.py` runs inner modules row by row, but not these: a function around a compiled module's
forward would compile it again, and the last module of an offloaded group drops the weights of all.
"""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec

from torch import nn

from framefleet.pipeline.errors import ModelError
from framefleet.pipeline.model.options.step_cache import hooks_of

# torch keeps 8 graphs of a function. Each shape and batch size needs one, so jobs with many shapes need more.
# Beyond the limit, with fullgraph, torch raises an error; it does not continue uncompiled with other bits.
MAX_GRAPHS = 4096


def has_compiled(module: nn.Module) -> bool:
    return any(_is_compiled(part) for part in module.modules())


def compiled_in(module: nn.Module) -> list[str]:
    """Return the names of compiled regions, each followed by a dot."""
    return [f"{name}." for name, part in module.named_modules() if name and _is_compiled(part)]


def separable(module: nn.Module) -> dict[str, nn.Module]:
    """Return the inner modules that may run separately, by name."""
    parts: dict[str, nn.Module] = {}
    sealed = tuple(compiled_in(module))
    for name, part in module.named_modules():
        groups = [hook.group for hook in hooks_of(part).values() if hasattr(hook, "group")]
        # A hook may load or drop the weights of a group of several modules.
        if name and not f"{name}.".startswith(sealed) and not any(len(group.modules) > 1 for group in groups):
            parts[name] = part
    return parts


def allow_graphs() -> None:
    """Let torch keep a graph for each shape. Affects the whole process.

    torch's settings are context variables, so assigning them has no effect in greenlets of rows and other
    threads: these use the defaults, which are changed too.
    """
    import torch._dynamo.config as config

    for name in ("recompile_limit", "accumulated_recompile_limit"):
        setattr(config, name, max(getattr(config, name), MAX_GRAPHS))
        entry = config._config[name]  # type: ignore[attr-defined]
        entry.default = max(entry.default, MAX_GRAPHS)


def check_compiler(device: str) -> None:
    """Raise ModelError if torch would not find a compiler later."""
    if device.startswith("cuda"):
        if find_spec("triton") is None:
            raise ModelError("compile needs Triton on a GPU", "pip install triton, or leave compile out")
    elif not any(map(shutil.which, (os.environ.get("CXX", ""), "g++", "clang++"))):
        raise ModelError("compile needs a C++ compiler on a CPU", "install g++, or leave compile out")


def _is_compiled(module: nn.Module) -> bool:
    return module._compiled_call_impl is not None  # set by nn.Module.compile
