"""Each weight of a LoRA's file has an effect, or is named in a refusal: in the formats of six programs."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import save_file
from torch import Tensor, nn

from framefleet.pipeline.errors import ModelError
from framefleet.pipeline.model.lora import fetch_lora, loras_of
from framefleet.pipeline.model.lora_loading import load_loras
from tests.long import examples
from tests.lora_dialects import DIALECTS
from tests.loras import plain_pipe


@cache
def bare(model: str) -> Any:
    return plain_pipe(model, torch.float32)


def loaded(pipe: Any, keys: dict[str, Tensor], folder: Path, name: str) -> list[Tensor]:
    """Load a file and return all numbers of its adapter, layer by layer; it is taken away again."""
    path = folder / f"{name}.safetensors"
    save_file(keys, path)
    try:
        load_loras(pipe, {"x": fetch_lora("x", loras_of({"x": path})["x"])}, allow_unmatched=False)
        return [
            number
            for network in pipe.components.values()
            if isinstance(network, nn.Module)
            for layer in network.modules()
            if isinstance(layer, BaseTunerLayer)
            for number in (
                torch.tensor(layer.scaling["adapter_x"]),  # type: ignore[index]
                *(weight.detach().clone() for key, weight in layer.named_parameters() if ".adapter_x" in key),
            )
        ]
    finally:
        pipe.unload_lora_weights()


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_weight_of_a_file_has_an_effect_or_is_named_in_a_refusal(dialect: str, tmp_path: Path) -> None:
    own = DIALECTS[dialect]
    pipe = bare(own.model)
    layers = own.layers(pipe)

    @settings(max_examples=examples(18), deadline=None, suppress_health_check=list(HealthCheck))
    @given(data=st.data())
    def check(data: st.DataObject) -> None:
        some = st.lists(st.sampled_from(range(len(layers))), min_size=1, unique=True)
        chosen = data.draw(some | st.just([*range(len(layers))]), label="layers")
        keys = {key: weight for at in sorted(chosen) for key, weight in layers[at].items()}
        if own.biases and data.draw(st.booleans(), label="biases"):
            keys |= {
                f"{key.rsplit('.', 2)[0]}.{own.biases}": weight[:, 0].clone()
                for key, weight in list(keys.items())
                if key.endswith((".lora_up.weight", ".lora_B.weight"))
            }
        near = layers[data.draw(st.sampled_from(sorted(chosen)), label="near")]
        others = own.others(near)
        names = data.draw(st.lists(st.sampled_from(sorted(others)), unique=True, max_size=3), label="others")
        cut = data.draw(st.sampled_from([None, *sorted(keys)]), label="without")
        keys = {key: weight for key, weight in keys.items() if key != cut} | {
            name: others[name] for name in names
        }
        try:
            before = loaded(pipe, keys, tmp_path, "a")
        except ModelError as error:
            assert error.fix and error.problem[-1] != "'" and len(str(error)) < 2000
            is_readable = cut is None and (not own.is_whole or len(chosen) == len(layers))
            expected = names if names and is_readable else [*keys, *filter(None, [cut])]
            assert any(key in str(error) for key in expected), str(error)
            assert names or not is_readable, str(error)
            return
        assert not names, "what has no use was taken"
        key = data.draw(st.sampled_from(sorted(keys)), label="changed")
        try:
            after = loaded(pipe, keys | {key: keys[key] + 1}, tmp_path, "b")
        except ModelError as error:  # of alphas: diffusers takes some only where all are equal
            assert key in str(error) and key.endswith("alpha")
            return
        assert any(not torch.equal(one, other) for one, other in zip(before, after, strict=True)), key

    check()


@pytest.mark.parametrize("dialect", ["original Wan", "peft"])
@pytest.mark.parametrize(
    ("start", "adapter"), [("", "default"), ("pipe.dit.", "default"), ("base_model.model.", "style")]
)
def test_the_name_of_peft_s_adapter_is_left_out_of_names_as_diffsynth_has_them(
    start: str, adapter: str, dialect: str, tmp_path: Path
) -> None:
    pipe, own = bare("wan"), DIALECTS[dialect]
    usual = {key: weight for layer in own.layers(pipe) for key, weight in layer.items()}
    ends = {"lora_down": "lora_A", "lora_up": "lora_B"}
    named = {}
    for key, weight in usual.items():
        layer, half, end = key.partition(".")[2].rsplit(".", 2)
        named[f"{start}{layer}.{ends.get(half, half)}.{adapter}.{end}"] = weight
    pairs = zip(loaded(pipe, named, tmp_path, "a"), loaded(pipe, usual, tmp_path, "b"), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
