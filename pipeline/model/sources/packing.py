"""Weights that a component's folder holds packed: by which method, and whether it can be read here.

A config's `quantization_config` names a method of diffusers, whose package unpacks the weights while they are
read. https://huggingface.co/docs/diffusers/v0.42.1/quantization/overview
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from framefleet.pipeline.errors import ModelError
from framefleet.pipeline.model.environment import version_of
from framefleet.pipeline.model.specs.model_index import read_object

KEY = "quantization_config"  # of a component's config.json
# A weight is built in four bytes, and may be stored in two bits.
TIMES_PACKED = 16


# What pip calls the package that a method of diffusers needs. Of others, diffusers says itself what it lacks.
METHOD_PACKAGES: Mapping[str, str] = {
    "auto-round": "auto-round",
    "bitsandbytes": "bitsandbytes",
    "gguf": "gguf",
    "modelopt": "nvidia-modelopt",
    "quanto": "optimum-quanto",
    "sdnq": "sdnq",
    "torchao": "torchao",
}
ON_GPUS = ("auto-round", "bitsandbytes")  # methods that need one
# diffusers fetches the code of its kernels from the hub when it reads the weights.
_FETCHES_CODE = ("nunchaku_lite",)


def check_package(method: str, where: str) -> None:
    """Raise ModelError where the package that a method needs is not installed."""
    package = METHOD_PACKAGES.get(method)
    if package and not version_of(package):
        fix = f"pip install '{package}', on every machine; framefleet[quantization] has those for CPUs"
        raise ModelError(f"{where} needs the Python package {package}, which is not installed", fix)


def check_packing(where: str, config: Any) -> None:
    """Raise ModelError for packed weights that cannot be read. config: the value of `quantization_config`."""
    method = config.get("quant_method") if isinstance(config, Mapping) else None
    if method in _FETCHES_CODE:
        problem = f"{where}: {KEY} has the method {method!r}, whose kernels are fetched from the hub as code"
        raise ModelError(problem, "use the model's plain weights, or those packed by another method")
    if not isinstance(method, str) or method not in config_classes():
        problem = f"{where}: {KEY} has the method {str(method)[:80]!r}, which diffusers does not read"
        methods = ", ".join(sorted(config_classes()))
        raise ModelError(problem, f"use the model's plain weights, or those packed by one of {methods}")
    check_package(method, f"{where}: {KEY} has the method {method!r}, which")


def method_of(folder: Path, component: str) -> str | None:
    """Return the method by which a component's weights are packed; None for plain weights."""
    path = folder / component / "config.json"
    config = read_object(path).get(KEY) if path.is_file() else None
    method = config.get("quant_method") if isinstance(config, Mapping) else None
    return method if isinstance(method, str) else None


def packed_components(folder: Path, files: Iterable[str]) -> dict[str, str]:
    """Return the method of each component whose weights are packed. files: of the model."""
    components = {file.partition("/")[0] for file in files if file.count("/") == 1}
    methods = {component: method_of(folder, component) for component in sorted(components)}
    return {component: method for component, method in methods.items() if method}


def config_classes(library: str = "diffusers") -> dict[str, Any]:
    """Return the class of each method's config. library: diffusers or transformers, which have one each."""
    classes = import_module(f"{library}.quantizers.auto").AUTO_QUANTIZATION_CONFIG_MAPPING
    # bitsandbytes has two entries, by its number of bits, and one name in configs.
    by_method = {name.removesuffix("_4bit").removesuffix("_8bit"): kind for name, kind in classes.items()}
    return {name: kind for name, kind in by_method.items() if name not in _FETCHES_CODE}
