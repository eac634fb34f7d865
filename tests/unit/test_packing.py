"""The config of packed weights is data: what names unknown code is refused before a library sees it."""

from __future__ import annotations

import enum
from importlib import import_module
from typing import Any

import pytest
from hypothesis import given, strategies as st

from framefleet.pipeline.errors import ModelError
from framefleet.pipeline.model.sources.packing import TORCHAO_CONFIGS, TORCHAO_ENUMS, check_packing


def torchao(**default: Any) -> dict[str, Any]:
    return {"quant_method": "torchao", "quant_type": {"default": default}}


def of_type(name: str, data: Any = None) -> dict[str, Any]:
    return {"_type": name, "_version": 1, "_data": data or {}}


INT8 = of_type("Int8WeightOnlyConfig")
HOSTILE = {
    "a function of torchao": torchao(**of_type("get_block_size", {"x": 1})),
    "a module": torchao(**of_type("torch", {})),
    "a call by a dotted name": torchao(**of_type("os.system", {})),
    "below a known class": torchao(**of_type("FqnToConfig", {"a": {"b": of_type("torch_load", {"f": "x"})}})),
    "in a list": torchao(**of_type("AWQConfig", {"step": [1, of_type("quantize_", {})]})),
    "data that a class is called with": torchao(**of_type("PerGroup", "x")),
    "an attribute of an enum": torchao(**of_type("MappingType", "__class__")),
    "an attribute of torch": torchao(**of_type("torch.dtype", "load")),
    "a type that is not a text": torchao(**of_type(["PerRow"])),  # type: ignore[arg-type]
    "next to what torchao reads": torchao(**INT8) | {"modules_to_not_convert": [of_type("hub", {})]},
    "of another method": {"quant_method": "gguf", "compute_dtype": "hub"},
    "a storage": {"quant_method": "gguf", "bnb_4bit_quant_storage": "classes"},
}


@pytest.mark.parametrize("config", HOSTILE.values(), ids=HOSTILE)
def test_what_names_code_is_refused(config: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match="is not a class or value of such a config"):
        check_packing("m/config.json", config)


def test_what_torchao_writes_is_taken() -> None:
    core, quantization = import_module("torchao.core.config"), import_module("torchao.quantization")
    configs = [
        quantization.Int8WeightOnlyConfig(),
        quantization.Int8DynamicActivationInt8WeightConfig(),
        quantization.Float8WeightOnlyConfig(),
        quantization.IntxWeightOnlyConfig(granularity=quantization.PerGroup(32)),
        quantization.FqnToConfig({"_default": quantization.Int8WeightOnlyConfig()}),
    ]
    for config in configs:
        check_packing("m/config.json", torchao(**core.config_to_dict(config)))


def test_each_known_name_is_a_class_of_torchao() -> None:
    core = import_module("torchao.core.config")
    modules = [import_module(name) for name in core.ALLOWED_AO_MODULES]

    def classes_of(name: str) -> list[type]:
        values = [getattr(module, name) for module in modules if hasattr(module, name)]
        assert all(isinstance(value, type) and value.__module__.startswith("torchao.") for value in values)
        return values

    assert all(issubclass(one, enum.Enum) for name in TORCHAO_ENUMS for one in classes_of(name))
    names = [one.__name__ for name in TORCHAO_CONFIGS for one in classes_of(name)]
    assert {"Int8WeightOnlyConfig", "PerRow"} <= set(names)


PLAIN = st.none() | st.booleans() | st.integers() | st.text(max_size=5)
VALUES = st.recursive(PLAIN, lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=3), inner))


@given(VALUES, st.text(max_size=30))
def test_at_any_depth_a_name_is_known_or_refused(value: Any, name: str) -> None:
    config = torchao(**INT8) | {"modules_to_not_convert": [value, {"more": of_type(name)}]}
    if name in TORCHAO_CONFIGS:
        check_packing("m/config.json", config)
    else:
        with pytest.raises(ModelError):
            check_packing("m/config.json", config)
