"""The `quantization_config` that each method of diffusers writes, and what strangers make of one."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import sys
import warnings
from functools import cache
from importlib import import_module
from pathlib import Path
from random import Random
from typing import Any

from framefleet.pipeline.model.sources.config_checks import check_configs
from tools.fuzz import hostile


def of_type(name: Any, data: Any = None) -> dict[str, Any]:
    return {"_type": name, "_version": 1, "_data": {} if data is None else data}


def torchao(**default: Any) -> dict[str, Any]:
    return {"quant_method": "torchao", "quant_type": {"default": default}, "modules_to_not_convert": ["head"]}


_BITS = {
    "bnb_4bit_compute_dtype": "bfloat16",
    "bnb_4bit_quant_storage": "uint8",
    "bnb_4bit_quant_type": "nf4",
    "bnb_4bit_use_double_quant": True,
    "llm_int8_enable_fp32_cpu_offload": False,
    "llm_int8_has_fp16_weight": False,
    "llm_int8_skip_modules": ["proj_out", "lm_head"],
    "llm_int8_threshold": 6.0,
    "quant_method": "bitsandbytes",
}
HONEST: dict[str, dict[str, Any]] = {
    "bitsandbytes_4bit": _BITS | {"_load_in_4bit": True, "load_in_4bit": True, "load_in_8bit": False},
    "bitsandbytes_8bit": _BITS | {"_load_in_8bit": True, "load_in_4bit": False, "load_in_8bit": True},
    "quanto": {"quant_method": "quanto", "weights_dtype": "int8", "modules_to_not_convert": ["proj_out"]},
    "torchao": torchao(
        **of_type("FqnToConfig", {"fqn_to_config": {"_default": of_type("PerRow"), "re:a.*": None}})
    ),
    "auto-round": {
        "quant_method": "auto-round",
        "bits": 4,
        "group_size": 128,
        "sym": True,
        "data_type": "int",
        "dataset": "NeelNanda/pile-10k",
        "packing_format": "auto_round:auto_gptq",
        "autoround_version": "0.9.2",
        "block_name_to_quantize": "blocks,single_blocks",
        "extra_config": {"proj_out": {"bits": 16, "data_type": "float"}, ".*attn.*": {"bits": 8}},
        "iters": 200,
        "seqlen": 2048,
    },
    "sdnq": {
        "quant_method": "sdnq",
        "weights_dtype": "uint4",
        "scale_dtype": None,
        "quantized_matmul_dtype": "int8",
        "hadamard_group_size": 256,
        "group_size": 0,
        "svd_rank": 32,
        "minimum_allowed_numel": 16384,
        "modules_to_not_convert": ["proj_out", ".norm_out", "blocks.*.norm*"],
        "modules_dtype_dict": {"int8": ["lm_head"]},
        "modules_quant_config": {"time_proj": {"weights_dtype": "float8_e4m3fn", "group_size": -1}},
        "quantization_device": None,
        "return_device": "cpu",
        "sdnq_version": "0.2.8",
        "is_integer": True,
        "is_training": False,
    },
}
# What torchao 0.18 makes of this writes a file: a function of its modules that calls two of torch.
SAVE = {"_type": "torch.dtype", "_data": "save"}
WRITES = of_type(
    "_replace_with_custom_fn_if_matches_filter",
    {"model": "x", "replacement_fn": SAVE, "filter_fn": SAVE, "cur_fqn": "was-run."},
)
# What is refused wherever it stands in such a config, whatever the method.
HOSTILE: dict[str, dict[str, Any]] = {
    "a function that calls others": {"quant_type": {"default": WRITES}},
    "a function of torchao": {"modules_to_not_convert": [of_type("get_block_size", {"x": 1})]},
    "a module": {"extra_config": {"a": of_type("torch", {})}},
    "a call by a dotted name": {"quant_type": {"default": of_type("os.system", {})}},
    "below a known class": {
        "quant_type": {"default": of_type("FqnToConfig", {"a": {"b": of_type("torch_load", {"f": "x"})}})}
    },
    "in a list": {"quant_type": {"default": of_type("AWQConfig", {"step": [1, of_type("quantize_", {})]})}},
    "data that a class is called with": {"quant_type": {"default": of_type("PerGroup", "x")}},
    "an attribute of an enum": {"quant_type": {"default": of_type("MappingType", "__class__")}},
    "an attribute of torch": {"quant_type": {"default": of_type("torch.dtype", "load")}},
    "a type that is not a text": {"quant_type": {"default": of_type(["PerRow"])}},
    "a name of torch": {"compute_dtype": "hub"},
    "a storage": {"bnb_4bit_quant_storage": "classes"},
    "rotations": {"rotation_config": {"hadamard_type": "random"}},
    "a path": {"backend": "/etc/passwd"},
    "a path upwards": {"calib_cfg": {"checkpoint_dir": "a/../../b"}},
    "a pattern without end": {"modules_to_not_convert": ["(a+)+b"]},
    "a pattern of patterns": {"extra_config": {"a*b*c*d*e": {}}},
    "many patterns": {"modules_to_not_convert": ["a*b*c"] * 1000},
    "a table without end": {"hadamard_group_size": 10**6},
    "bits without end": {"extra_config": {"a": {"bits": 10_000}}},
    "not a number": {"llm_int8_threshold": float("nan")},
}


# Names in torchao's modules, and what may come with a name.
_TYPES = (
    *("Int8WeightOnlyConfig", "FqnToConfig", "PerGroup", "MappingType", "torch.dtype", "quantize_", "torch"),
    *("config_from_dict", "get_block_size", "partial", "Any", "nn", "importlib", "warnings", "logger", "os"),
    *("TorchAODType", "AWQObserver", "UintxTensor", "safe_int_mm", "__builtins__", "__loader__", "dataclass"),
)
_DATA = (
    *({}, {"f": "was-run", "obj": "x"}, {"cmd": "touch was-run"}, {"path": "was-run"}, {"group_size": 32}),
    *({"fqn_to_config": {"re:(a+)+b": None}}, "touch was-run", "SYMMETRIC", "load", "int8", ["x"], None, 7),
)


def mutated(rng: Random) -> dict[str, Any]:
    """Return the config of one method with hostile values, types and keys in it."""
    config = copy.deepcopy(rng.choice(list(HONEST.values())))
    if rng.random() < 0.2:
        config |= copy.deepcopy(rng.choice(list(HOSTILE.values())))
    if rng.random() < 0.7:
        method, config = config["quant_method"], hostile.mutated_tree(rng, config)
        config["quant_method"] = method
    if rng.random() < 0.4:
        kind = rng.choice((of_type(rng.choice(_TYPES), rng.choice(_DATA)), WRITES))
        config["quant_type"] = {"default": copy.deepcopy(kind)}
        config["quant_method"] = rng.choice((config["quant_method"], "torchao"))
    return config


# What Python tells of (PEP 578) where code is run, or a library is opened.
_EVENTS = ("exec", "os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "ctypes.dlopen")
_READERS = {"diffusers": "DiffusersAutoQuantizer", "transformers": "AutoHfQuantizer"}
_CONFIG = "transformer/config.json"
_events: list[str] = []


def events_of(config: Any, folder: Path) -> list[str]:
    """Return what ran or was written while libraries read a config. Raises ModelError where it is refused."""
    path = folder / _CONFIG
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"_class_name": "WanTransformer3DModel", "quantization_config": config}))
    check_configs(folder, [_CONFIG])
    return events_of_libraries(json.loads(path.read_text())["quantization_config"])


def events_of_libraries(config: Any) -> list[str]:
    """Return what ran or was written while libraries made of a config whatever they can."""
    warm()
    _events.clear()
    _read(config)
    return [*_events]


def _read(config: Any) -> None:
    for library, name in _READERS.items():
        reader = getattr(import_module(f"{library}.quantizers.auto"), name)
        with contextlib.suppress(Exception), warnings.catch_warnings(action="ignore"):
            reader.from_config(config, pre_quantized=True).quantization_config.to_dict()


@cache
def warm() -> None:
    """Have libraries import what they import, which looks as if code were run."""
    for config in (*HONEST.values(), torchao(**of_type("nobody's"))):
        _read(config)
    sys.addaudithook(_listen)


def _listen(event: str, arguments: tuple[Any, ...]) -> None:
    is_written = event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR)
    if event in _EVENTS or is_written:
        _events.append(f"{event} {arguments!r:.200}")
