"""The config of packed weights is data: what names unknown code is refused before a library sees it."""

from __future__ import annotations

import enum
from importlib import import_module
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, strategies as st

from framefleet.pipeline.errors import ModelError
from framefleet.pipeline.model.sources.packing import TORCHAO_CONFIGS, TORCHAO_ENUMS, check_packing
from tests.packed_configs import (
    HONEST,
    HOSTILE,
    WRITES,
    events_of,
    events_of_libraries,
    mutated,
    of_type,
    torchao,
)


@pytest.mark.parametrize("values", HOSTILE.values(), ids=HOSTILE)
def test_what_is_not_plain_is_refused_of_each_method(values: dict[str, Any]) -> None:
    for config in HONEST.values():
        with pytest.raises(ModelError, match="is not a class or value of such a config"):
            check_packing("m/config.json", config | values)


@pytest.mark.parametrize("method", HONEST)
def test_what_each_method_writes_is_taken_where_its_package_is_there(method: str) -> None:
    try:
        check_packing("m/config.json", HONEST[method])
    except ModelError as error:
        assert "needs the Python package" in error.problem


def test_flags_of_another_method_and_methods_that_are_not_read_from_folders_are_refused() -> None:
    for flag in ("load_in_8bit", "load_in_4bit"):  # libraries go by them alone
        with pytest.raises(ModelError, match=f"has '{flag}'"):
            check_packing("m/config.json", HONEST["quanto"] | {flag: True})
    reasons = {"nunchaku_lite": "downloaded from the hub as code", "modelopt": "is a pickle"}
    for method, reason in (reasons | dict.fromkeys(("bfl", "gguf"), "not from ")).items():
        with pytest.raises(ModelError, match=reason):
            check_packing("m/config.json", {"quant_method": method})


@pytest.mark.parametrize("count", [200, pytest.param(2000, marks=pytest.mark.long)])
def test_whatever_is_in_a_config_nothing_runs_and_nothing_is_written(
    count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    num_read = 0
    for seed in range(count):
        try:
            assert events_of(mutated(Random(seed)), tmp_path) == [], seed
            num_read += 1
        except ModelError:
            pass
    assert num_read > count / 10
    assert [path.name for path in tmp_path.iterdir()] == ["transformer"]
    events_of_libraries(torchao(**WRITES))  # as it is without a check
    assert Path("was-run").exists()


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


WORDS = st.text("ab._", max_size=5)
PLAIN = st.none() | st.booleans() | st.integers(-9, 9999) | WORDS
VALUES = st.recursive(PLAIN, lambda inner: st.lists(inner) | st.dictionaries(WORDS, inner))


@given(VALUES, st.text(max_size=30))
def test_at_any_depth_a_name_is_known_or_refused(value: Any, name: str) -> None:
    int8 = of_type("Int8WeightOnlyConfig")
    config = torchao(**int8) | {"modules_to_not_convert": [value, {"more": of_type(name)}]}
    if name in TORCHAO_CONFIGS:
        check_packing("m/config.json", config)
    else:
        with pytest.raises(ModelError):
            check_packing("m/config.json", config)
