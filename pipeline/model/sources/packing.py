"""Packed weights in a component's folder: the method, and whether it can be read here.

A config's `quantization_config` names a method of diffusers, whose package unpacks the weights while they are
read. https://huggingface.co/docs/diffusers/v0.42.1/quantization/overview
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from framefleet.pipeline.errors import ModelError, shown
from framefleet.pipeline.model.environment import version_of
from framefleet.pipeline.model.specs.model_index import read_object

KEY = "quantization_config"  # of a component's config.json
# A weight is built in four bytes, and may be stored in two bits.
TIMES_PACKED = 16


# pip's name of the package that a method of diffusers needs. For others, diffusers reports what is missing.
METHOD_PACKAGES: Mapping[str, str] = {
    "auto-round": "auto-round",
    "bitsandbytes": "bitsandbytes",
    "gguf": "gguf",
    "modelopt": "nvidia-modelopt",
    "quanto": "optimum-quanto",
    "sdnq": "sdnq",
    "torchao": "torchao",
}
ON_GPUS = ("auto-round", "bitsandbytes")  # methods that need a GPU
_NUNCHAKU = "nunchaku_lite"
# Methods of diffusers whose packed weights are refused, and why.
_REFUSED = {
    "bfl": "which diffusers reads from single files, not from folders",
    "gguf": "which is read from a .gguf file (`model.parts`), not from a folder",
    "modelopt": "whose state is a pickle",
    _NUNCHAKU: "whose kernels are downloaded from the hub as code",
}
# Classes in torchao's configs. Its `config_from_dict` calls whatever has this name in its modules, also
# imported functions, and through these any function of torch.
TORCHAO_CONFIGS = frozenset(
    {
        *("AWQConfig", "BlockSparseWeightConfig", "FqnToConfig", "ModuleFqnToConfig", "SmoothQuantConfig"),
        *("Float8DynamicActivationFloat8WeightConfig", "Float8DynamicActivationInt4WeightConfig"),
        *("Float8MMConfig", "Float8StaticActivationFloat8WeightConfig", "Float8WeightOnlyConfig"),
        *("Int4WeightOnlyConfig", "Int8WeightOnlyConfig", "IntxWeightOnlyConfig", "UIntxWeightOnlyConfig"),
        *("Int8DynamicActivationInt8WeightConfig", "Int8DynamicActivationIntxWeightConfig"),
        *("Int8DynamicActivationUIntxWeightConfig", "Int8StaticActivationInt8WeightConfig"),
        *("MXDynamicActivationMXWeightConfig", "NVFP4DynamicActivationNVFP4WeightConfig"),
        *("NVFP4WeightOnlyConfig", "SemiSparseWeightConfig", "StretchedIntxWeightConfig"),
        *("PerAxis", "PerBlock", "PerGroup", "PerRow", "PerTensor", "PerToken"),
        *("QuantizeTensorToFloat8Kwargs", "QuantizeTensorToInt8Kwargs"),
    }
)
TORCHAO_ENUMS = frozenset(
    {
        *("Float8PackingFormat", "Int4ChooseQParamsAlgorithm", "Int4PackingFormat", "KernelPreference"),
        *("IntxChooseQParamsAlgorithm", "IntxPackingFormat", "MappingType", "PackingFormat"),
        *("ScaleCalculationMode", "TorchAODType", "ZeroPointDomain"),
    }
)
_MEMBER = re.compile(r"[A-Z][A-Z0-9_]*")
_DTYPE = re.compile(r"(torch\.)?(none|bool|half|float|double|int|long|[a-z]{1,9}[0-9][a-z0-9_]*)")
_OF_TORCH = ("dtype", "storage")  # suffixes of keys whose values are looked up in torch
# Keys whose values may be mappings. In others, AutoRound finds transformations of any size.
_MAPPINGS = frozenset(
    {
        *("quant_type", "quant_type_kwargs", "modelopt_config", "calib_cfg"),
        *("extra_config", "modules_dtype_dict", "modules_quant_config"),
    }
)
# Text may be names of modules, methods and devices, but not paths. Some methods read it as patterns.
_TEXT = re.compile(r"(?!/)(?!.*\.\./)[\w.:/\\, +*|()\[\]{}?$^-]*")
_REPEATS = re.compile(r"[*+{?]")
_REPEATED_GROUP = re.compile(r"\)[*+{?]")
# Each repetition in a pattern multiplies the steps of a match by the name's length. The limit is for all.
_LETTERS, _MAX_STEPS = 64, 1_000_000
# Tables grow with the square of some numbers. Sizes below which a layer stays plain (`minimum_`) are larger.
_MOST, _MOST_VALUES, _MOST_BITS = 16_384, 2**24, 64


def check_package(method: str, where: str) -> None:
    """Raise ModelError if the package that a method needs is not installed."""
    package = METHOD_PACKAGES.get(method)
    if package and not version_of(package):
        fix = f"pip install '{package}' on every machine; framefleet[quantization] has those for CPUs"
        raise ModelError(f"{where} needs the Python package {package}, which is not installed", fix)


def check_packing(where: str, config: Any) -> None:
    """Raise ModelError for packed weights that cannot be read. config: the value of `quantization_config`."""
    method = config.get("quant_method") if isinstance(config, Mapping) else None
    if isinstance(method, str) and method in _REFUSED:
        problem = f"{where}: {KEY} has the method {method!r}, {_REFUSED[method]}"
        raise ModelError(problem, "use the model's plain weights, or those packed by another method")
    if not isinstance(method, str) or method not in config_classes():
        problem = f"{where}: {KEY} has the method {str(method)[:80]!r}, which diffusers does not read"
        methods = ", ".join(sorted(config_classes().keys() - _REFUSED.keys()))
        raise ModelError(problem, f"use the model's plain weights, or those packed by one of {methods}")
    for value in _odd_values(config):
        problem = f"{where}: {KEY} has {shown(value)}, which is not a class or value of such a config"
        raise ModelError(problem, "use the model's plain weights, or download the model again")
    check_package(method, f"{where}: {KEY} has the method {method!r}, which")


def _odd_values(config: Mapping[str, Any]) -> Iterator[Any]:
    """Yield odd values: those that libraries would look up and call, or that take much memory or time."""
    if config["quant_method"] != "bitsandbytes":  # with one of these keys, libraries take it for bitsandbytes
        yield from (key for key in ("load_in_8bit", "load_in_4bit") if config.get(key))
    mappings = (key for key, value in config.items() if value and isinstance(value, Mapping))
    yield from (key for key in mappings if key not in _MAPPINGS)
    num_steps = 0
    waiting: list[tuple[str, Any]] = [("", config)]
    while waiting:
        key, value = waiting.pop()
        if isinstance(value, Mapping):
            if "_type" in value and not _is_known(value["_type"], value.get("_data")):
                yield value["_type"]
            waiting += [*value.items(), *(("", name) for name in value)]  # keys are names of modules too
        elif isinstance(value, list):
            waiting += [(key, inner) for inner in value]
        elif isinstance(value, str):
            num_steps += _LETTERS ** min(len(_REPEATS.findall(value)), _LETTERS)
            is_text = _TEXT.fullmatch(value) and not _REPEATED_GROUP.search(value)
            is_dtype = not key.endswith(_OF_TORCH) or _DTYPE.fullmatch(value)
            if not (is_text and is_dtype and num_steps <= _MAX_STEPS):
                yield value
        elif value is not None:
            most = _MOST_BITS if key.endswith("bits") else _MOST_VALUES if key.startswith("min") else _MOST
            if not abs(value) <= most:  # also true for NaN
                yield {key: value}


def _is_known(kind: Any, content: Any) -> bool:
    """Return whether a torchao config has a known `_type`, and `_data` that fits it."""
    if not isinstance(kind, str):
        return False
    if kind == "torch.dtype":
        return isinstance(content, str) and bool(_DTYPE.fullmatch(content))
    if kind in TORCHAO_ENUMS:
        return isinstance(content, str) and bool(_MEMBER.fullmatch(content))
    return kind in TORCHAO_CONFIGS and isinstance(content, Mapping)


def method_of(folder: Path, component: str) -> str | None:
    """Return the method that packed a component's weights; None for plain weights."""
    path = folder / component / "config.json"
    config = read_object(path).get(KEY) if path.is_file() else None
    method = config.get("quant_method") if isinstance(config, Mapping) else None
    return method if isinstance(method, str) else None


def packed_components(folder: Path, files: Iterable[str]) -> dict[str, str]:
    """Return the method of each component with packed weights. files: the model's."""
    components = {file.partition("/")[0] for file in files if file.count("/") == 1}
    methods = {component: method_of(folder, component) for component in sorted(components)}
    return {component: method for component, method in methods.items() if method}


def config_classes(library: str = "diffusers") -> dict[str, Any]:
    """Return the config class of each method. library: diffusers or transformers, which have their own."""
    classes = import_module(f"{library}.quantizers.auto").AUTO_QUANTIZATION_CONFIG_MAPPING
    # bitsandbytes has two entries, one for each number of bits, but only one name in configs.
    by_method = {name.removesuffix("_4bit").removesuffix("_8bit"): kind for name, kind in classes.items()}
    return {name: kind for name, kind in by_method.items() if name != _NUNCHAKU}
